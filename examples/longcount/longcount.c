// longcount works steadily for as many rounds as it is told, about a tenth of a second each, and loses at most EVERY rounds when
// it is interrupted: that often it writes to /state/ how far it is, and calls for a checkpoint. Each line of its output
// depends on all rounds before it. Its log says where it started and what it saved.

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mesh.h"

enum { STEPS = 30000000 }; // of a round
static const char SAVED[] = MESH_STATE "/longcount.state", UNFINISHED[] = MESH_STATE "/longcount.new";

// What there is to save: the rounds done, what they add up to, and the output so far.
static struct {
	long round;
	uint64_t sum;
	char *lines;
	size_t used, room;
} now = {.sum = 0x9e3779b97f4a7c15};

static void die(const char *what) {
	fprintf(stderr, "longcount: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void append(const char *text, size_t n) {
	if (n > now.room - now.used) {
		now.room = 2 * (now.used + n);
		if (!(now.lines = realloc(now.lines, now.room))) die("memory");
	}
	memcpy(now.lines + now.used, text, n);
	now.used += n;
}

// save writes a new file beside the old one, so that there is always a whole one.
static void save(void) {
	FILE *f = fopen(UNFINISHED, "w");
	if (!f) die(UNFINISHED);
	fprintf(f, "%ld %" PRIu64 "\n", now.round, now.sum);
	fwrite(now.lines, 1, now.used, f);
	if (ferror(f) | fclose(f)) die(UNFINISHED);
	if (rename(UNFINISHED, SAVED)) die(SAVED);
	mesh_checkpoint();
	fprintf(stderr, "saved round %ld\n", now.round);
}

static void load(void) {
	FILE *f = fopen(SAVED, "r");
	if (!f) return; // a new start
	if (fscanf(f, "%ld %" SCNu64, &now.round, &now.sum) != 2 || getc(f) != '\n') die(SAVED);
	char b[4096];
	for (size_t n; (n = fread(b, 1, sizeof b, f)) > 0;) append(b, n);
	if (ferror(f)) die(SAVED);
	fclose(f);
}

// work does one round: xorshift64* in a chain that has no short cut.
static void work(void) {
	uint64_t x = now.sum ^ (uint64_t)now.round;
	for (long i = 0; i < STEPS; i++) {
		x ^= x >> 12;
		x ^= x << 25;
		x ^= x >> 27;
		x = x * 0x2545f4914f6cdd1d + 1;
	}
	now.sum = x;
	now.round++;
}

int main(int argc, char **argv) {
	long rounds = argc > 1 ? atol(argv[1]) : 0, every = argc > 2 ? atol(argv[2]) : 10;
	if (rounds <= 0 || every <= 0) {
		fputs("usage: longcount ROUNDS [EVERY]\n", stderr);
		return 2;
	}
	load();
	fprintf(stderr, now.round ? "goes on after round %ld of %ld\n" : "starts, %ld of %ld\n", now.round, rounds);
	while (now.round < rounds) {
		work();
		mesh_progress((uint32_t)(now.round * 1000 / rounds));
		if (now.round % every && now.round < rounds) continue;
		char line[64];
		append(line, (size_t)snprintf(line, sizeof line, "%ld %016" PRIx64 "\n", now.round, now.sum));
		if (now.round < rounds) save();
	}
	fwrite(now.lines, 1, now.used, stdout);
	if (remove(SAVED) && errno != ENOENT) die(SAVED);
	return fflush(stdout) ? 1 : 0;
}
