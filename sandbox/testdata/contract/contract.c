// contract is the program of the conformance tests: each subcommand tries one part of what a task's program may rely on,
// and prints what it sees. What it prints must not depend on the engine.

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "mesh.h"

extern char **environ;

static void show(const char *path) {
	struct stat s;
	if (lstat(path, &s)) {
		printf("%s: %s\n", path, strerror(errno));
		return;
	}
	printf("%s: dev %llu ino %llu mode %o links %llu size %lld times %lld.%09ld %lld.%09ld\n", path, (unsigned long long)s.st_dev,
	       (unsigned long long)s.st_ino, s.st_mode & S_IFMT, (unsigned long long)s.st_nlink, (long long)s.st_size,
	       (long long)s.st_mtim.tv_sec, s.st_mtim.tv_nsec, (long long)s.st_ctim.tv_sec, s.st_ctim.tv_nsec);
}

static void list(const char *path) {
	DIR *d = opendir(path);
	if (!d) {
		printf("%s: %s\n", path, strerror(errno));
		return;
	}
	for (struct dirent *e; (e = readdir(d));)
		printf("%s/%s: ino %llu type %d\n", path, e->d_name, (unsigned long long)e->d_ino, e->d_type);
	closedir(d);
}

static void report(const char *what, int result) {
	printf("%s: %s\n", what, result < 0 ? strerror(errno) : "ok");
}

static void save(const char *path, const char *text) {
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
	report(path, fd);
	if (fd < 0) return;
	if (write(fd, text, strlen(text)) < 0) report("write", -1);
	close(fd);
}

static void files(void) {
	char b[64];
	list("/");
	list("/in");
	list("/in/deep");
	show("/in/a.txt");
	int fd = open("/in/a.txt", O_RDONLY);
	report("open /in/a.txt", fd);
	printf("fd %d\n", fd);
	ssize_t n = read(fd, b, sizeof b);
	printf("read %zd %.*s\n", n, (int)n, b);
	printf("seek %lld\n", (long long)lseek(fd, -3, SEEK_END));
	n = read(fd, b, sizeof b);
	printf("read %zd %.*s\n", n, (int)n, b);
	report("write to it", write(fd, "x", 1));
	close(fd);
	report("open for writing", open("/in/a.txt", O_RDWR));
	report("truncate", open("/in/a.txt", O_WRONLY | O_TRUNC));
	report("create in /in", open("/in/new", O_WRONLY | O_CREAT, 0666));
	report("create in /", open("/new", O_WRONLY | O_CREAT, 0666));
	report("unlink in /in", unlink("/in/a.txt"));
	report("mkdir in /in", mkdir("/in/d", 0777));
	report("rename from /in", rename("/in/a.txt", "/out/a.txt"));
	report("rmdir /out", rmdir("/out"));
	report("open missing", open("/in/missing", O_RDONLY));
	report("open as directory", open("/in/a.txt/x", O_RDONLY));
	report("leave", open("/in/../../etc/passwd", O_RDONLY));
	report("host file", open("/etc/passwd", O_RDONLY));
	for (int i = 0; i < 4; i++) {
		struct stat s;
		report("fstat", fstat(i, &s));
		printf("fd %d: mode %o size %lld ino %llu dev %llu tty %d\n", i, s.st_mode & S_IFMT, (long long)s.st_size,
		       (unsigned long long)s.st_ino, (unsigned long long)s.st_dev, isatty(i));
	}
}

static void tree(void) {
	char b[64];
	save("/out/zebra", "stripes\n");
	save("/out/apple", "");
	report("mkdir", mkdir("/out/dir", 0777));
	report("mkdir again", mkdir("/out/dir", 0777));
	save("/out/dir/inner", "inner\n");
	save("/tmp/scratch", "gone\n");
	report("rename across", rename("/tmp/scratch", "/out/kept"));
	report("rename directory", rename("/out/dir", "/out/moved"));
	report("rename into itself", rename("/out/moved", "/out/moved/x"));
	report("rename directory across", rename("/out/moved", "/tmp/moved"));
	report("link", link("/out/zebra", "/out/moved/zebra2"));
	report("link across", link("/out/zebra", "/tmp/zebra3"));
	report("symlink", symlink("moved/inner", "/out/soft"));
	report("symlink loop", symlink("loop", "/tmp/loop"));
	report("open loop", open("/tmp/loop", O_RDONLY));
	report("absolute symlink", symlink("/out/moved", "/tmp/abs"));
	list("/tmp/abs/");
	ssize_t n = readlink("/out/soft", b, sizeof b);
	printf("readlink %.*s\n", (int)n, b);
	report("rmdir full", rmdir("/out/moved"));
	report("unlink directory", unlink("/out/moved"));
	save("/out/soft", "through a link\n");
	int fd = open("/out/apple", O_RDWR | O_APPEND);
	report("unlink open", unlink("/out/apple"));
	write(fd, "still here", 10);
	printf("seek %lld\n", (long long)lseek(fd, 0, SEEK_CUR));
	report("ftruncate", ftruncate(fd, 5));
	n = pread(fd, b, sizeof b, 0);
	printf("pread %zd %.*s\n", n, (int)n, b);
	close(fd);
	fd = open("/out/big", O_RDWR | O_CREAT, 0666);
	for (int i = 0; i < 5000; i++) write(fd, "0123456789", 10);
	pwrite(fd, "MIDDLE", 6, 25000);
	pwrite(fd, "END", 3, 60000);
	lseek(fd, 24998, SEEK_SET);
	n = read(fd, b, 10);
	printf("read %.*s\n", (int)n, b);
	close(fd);
	show("/out/big");
	show("/out/zebra");
	show("/out/soft");
	show("/out");
	list("/out");
	list("/out/moved");
	report("bad name", open("/out/\xff", O_WRONLY | O_CREAT, 0666));
}

static void clocks(void) {
	struct timespec t, m, r;
	for (int i = 0; i < 3; i++) {
		clock_gettime(CLOCK_REALTIME, &t);
		clock_gettime(CLOCK_MONOTONIC, &m);
		clock_getres(CLOCK_MONOTONIC, &r);
		printf("%lld.%09ld %lld.%09ld %ld\n", (long long)t.tv_sec, t.tv_nsec, (long long)m.tv_sec, m.tv_nsec, r.tv_nsec);
		sleep(3600);
	}
	struct timespec until = {t.tv_sec + 100000, 5};
	report("sleep until", clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &until, NULL));
	printf("%lld\n", (long long)time(NULL));
}

static void randoms(void) {
	unsigned char b[100];
	for (int round = 0; round < 3; round++) {
		getentropy(b, sizeof b);
		for (size_t i = 0; i < sizeof b; i++) printf("%02x", b[i]);
		putchar('\n');
	}
}

static void print_float(const char *name, double d) {
	uint64_t u;
	memcpy(&u, &d, 8);
	printf("%s %.17g %016llx\n", name, d, (unsigned long long)u);
}

// vectors is the same with SIMD.
__attribute__((target("simd128"))) static void vectors(double zero, double nan) {
	typedef double pair __attribute__((vector_size(16)));
	typedef float quad __attribute__((vector_size(16)));
	pair p = {zero, nan}, q = p / (pair){0, 1};
	quad f = {(float)zero, 1, -1, (float)nan}, g = f / (quad){0, 0, 0, 1};
	uint32_t u[4];
	print_float("pair 0", q[0]);
	print_float("pair 1", q[1]);
	memcpy(u, &g, 16);
	printf("quad %08x %08x %08x %08x\n", u[0], u[1], u[2], u[3]);
}

static void floats(void) {
	volatile double zero = 0, one = 1, big = 1e308;
	double sum = 0;
	for (int i = 1; i < 100000; i++) sum += sin(i) * sqrt(i) / log(i + 1.5);
	print_float("sum", sum);
	print_float("inf", one / zero);
	print_float("nan", zero / zero);
	print_float("overflow", big * 10);
	print_float("denormal", 5e-324 * one);
	print_float("pow", pow(1.0000001, 1e7));
	print_float("inf - inf", one / zero - one / zero);
	print_float("sqrt", sqrt(-one));
	print_float("zero times inf", zero * (one / zero));
	union { uint64_t u; double d; } odd = {0xfff4dead0000beefull}; // a NaN that comes in keeps no payload
	volatile double in = odd.d;
	print_float("sum with a NaN", in + one);
	print_float("floor of a NaN", floor(in));
	print_float("negated", -in); // not arithmetic: bits are kept
	print_float("converted", (double)((float)in * 2));
	vectors(zero, in);
	float f = 0;
	for (int i = 0; i < 10000; i++) f += 0.1f;
	print_float("float", f);
}

static void state_files(void) {
	save("/state/a", "text\n");
	report("mkdir", mkdir("/state/dir", 0777));
	report("symlink", symlink("dir/b", "/state/link"));
	report("link", link("/state/a", "/state/a2"));
	report("link across", link("/state/a", "/tmp/a2"));
	report("rename", rename("/state/a", "/state/dir/b"));
	save("/tmp/c", "scratch\n");
	report("rename across", rename("/tmp/c", "/state/c"));
	report("rename directory across", rename("/state/dir", "/out/dir"));
	mesh_checkpoint();
	mesh_progress(1001);
	report("rename away", rename("/state/link", "/out/link"));
	list("/state");
	show("/state/dir/b");
	show("/state");
}

// state does rounds that depend on the one before, on the clock and on the random source, and goes on from where /state says that
// it was. Each round takes some tenths of spin in microseconds. At its first start it traps after that many rounds, if not 0.
static void state(long rounds, long spin, long trap) {
	long round = 0;
	uint64_t sum = 1;
	FILE *f = fopen("/state/round", "r");
	if (f) {
		if (fscanf(f, "%ld %llu", &round, &sum) != 2) exit(9);
		fclose(f);
		trap = 0;
	} else if (mkdir("/state/dir", 0777) || mkdir("/state/dir/empty", 0777) || symlink("dir/lines", "/state/link"))
		exit(9);
	fprintf(stderr, "starts at %ld\n", round);
	while (round < rounds) {
		struct timespec t;
		unsigned char b[5];
		clock_gettime(CLOCK_REALTIME, &t);
		getentropy(b, sizeof b);
		for (volatile long i = 0; i < spin * 300; i++) sum = sum * 6364136223846793005u + (uint64_t)i;
		for (size_t i = 0; i < sizeof b; i++) sum = sum * 31 + b[i];
		sum = sum * 31 + (uint64_t)t.tv_nsec;
		round++;
		f = fopen("/state/dir/lines", "a");
		fprintf(f, "%ld %020llu %lld.%09ld\n", round, sum, (long long)t.tv_sec, t.tv_nsec);
		fclose(f);
		f = fopen("/state/new", "w");
		fprintf(f, "%ld %llu\n", round, sum);
		fclose(f);
		if (rename("/state/new", "/state/round")) exit(8);
		mesh_checkpoint();
		mesh_progress((uint32_t)(round * 1000 / rounds));
		if (round == trap) __builtin_trap();
	}
	if (rename("/state/dir/lines", "/out/lines")) exit(7);
	printf("%llu\n", sum);
}

static volatile int sink;
static int recurse(int n) { return n == 0 ? 0 : recurse(n + 1) + sink; }

static void endless(int fd) {
	static char b[1 << 16];
	memset(b, 'x', sizeof b);
	while (write(fd, b, sizeof b) >= 0) {
	}
	perror("endless");
	exit(9);
}

int main(int argc, char **argv) {
	const char *what = argc > 1 ? argv[1] : "";
	if (!strcmp(what, "args")) {
		for (int i = 0; i < argc; i++) printf("%d %s\n", i, argv[i]);
		for (char **e = environ; *e; e++) puts(*e);
	} else if (!strcmp(what, "cat")) {
		static char b[100000];
		for (ssize_t n; (n = read(0, b, sizeof b)) > 0;)
			if (write(1, b, n) != n) return 1;
	} else if (!strcmp(what, "stdin-seek")) {
		char b[8] = {0};
		printf("%lld\n", (long long)lseek(0, -4, SEEK_END));
		printf("%zd %s\n", read(0, b, 7), b);
	} else if (!strcmp(what, "files"))
		files();
	else if (!strcmp(what, "tree"))
		tree();
	else if (!strcmp(what, "clock"))
		clocks();
	else if (!strcmp(what, "random"))
		randoms();
	else if (!strcmp(what, "floats"))
		floats();
	else if (!strcmp(what, "state"))
		state(atol(argv[2]), argc > 3 ? atol(argv[3]) : 0, argc > 4 ? atol(argv[4]) : 0);
	else if (!strcmp(what, "state-files"))
		state_files();
	else if (!strcmp(what, "endless-state"))
		endless(open("/state/f", O_WRONLY | O_CREAT, 0666));
	else if (!strcmp(what, "exit"))
		return atoi(argv[2]);
	else if (!strcmp(what, "trap")) {
		puts("before");
		fputs("about to trap\n", stderr);
		fflush(stdout);
		__builtin_trap();
	} else if (!strcmp(what, "null"))
		printf("%d\n", *(volatile int *)0xfffffff0);
	else if (!strcmp(what, "overflow")) {
		sink = 1;
		return recurse(1);
	} else if (!strcmp(what, "loop"))
		for (;;) sink++;
	else if (!strcmp(what, "log-loop")) {
		fputs("looping\n", stderr);
		for (;;) sink++;
	} else if (!strcmp(what, "memory")) {
		size_t total = 0;
		for (char *volatile p; (p = malloc(1 << 20)); total++) memset(p, 1, 1 << 20); // volatile: else the compiler takes malloc away
		printf("refused, %s\n", total > 8 && total < 64 ? "as expected" : "too early or late");
		return 3;
	} else if (!strcmp(what, "endless"))
		endless(1);
	else if (!strcmp(what, "endless-log")) {
		for (int i = 0; i < 100000; i++) fputs("0123456789abcdef\n", stderr);
		puts("went on");
	} else if (!strcmp(what, "endless-out"))
		endless(open("/out/f", O_WRONLY | O_CREAT, 0666));
	else if (!strcmp(what, "endless-tmp"))
		endless(open("/tmp/f", O_WRONLY | O_CREAT, 0666));
	else if (!strcmp(what, "sparse")) {
		int fd = open("/tmp/f", O_WRONLY | O_CREAT, 0666);
		pwrite(fd, "x", 1, 1LL << 40);
		return 9;
	} else if (!strcmp(what, "outputs")) {
		for (int i = 0; i < atoi(argv[2]); i++) {
			char name[64];
			snprintf(name, sizeof name, "/out/%07d", i);
			close(open(name, O_WRONLY | O_CREAT, 0666));
		}
	} else if (!strcmp(what, "tmp-used")) {
		list("/tmp");
		list("/out");
		save("/tmp/left", "left\n");
		save("/out/left", "left\n");
	} else if (!strcmp(what, "binary")) {
		for (int i = 0; i < 256; i++) putchar(i);
	} else {
		fprintf(stderr, "contract: unknown part %s\n", what);
		return 2;
	}
	return 0;
}
