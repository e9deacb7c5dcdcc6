// autosave is the conformance tests' program that only writes files: it knows no checkpoint, and goes on from what it finds. With
// "open" it keeps a file in /state open for writing, so that there is no moment for a snapshot.

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
	long rounds = argc > 1 ? atol(argv[1]) : 0, round = 0;
	uint64_t sum = 1;
	if (argc > 2 && !strcmp(argv[2], "open") && open("/state/log", O_WRONLY | O_CREAT, 0666) < 0) return 1;
	FILE *f = fopen("/state/round", "r");
	if (f) {
		if (fscanf(f, "%ld %llu", &round, &sum) != 2) return 1;
		fclose(f);
	}
	fprintf(stderr, "starts at %ld\n", round);
	while (round < rounds) {
		round++;
		for (int i = 0; i < 100000; i++) sum = sum * 6364136223846793005u + (uint64_t)round;
		f = fopen("/state/new", "w");
		if (!f || fprintf(f, "%ld %llu\n", round, sum) < 0 || fclose(f)) return 1;
		if (rename("/state/new", "/state/round")) return 1;
	}
	printf("%llu\n", sum);
	return 0;
}
