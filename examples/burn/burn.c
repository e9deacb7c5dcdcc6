// burn keeps a processor busy: it sieves the primes below two million as many times as its argument says, and prints a
// checksum of them.

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LIMIT = 2000000 };

static unsigned char composite[LIMIT];

int main(int argc, char **argv) {
	char *end;
	long rounds = argc == 2 ? strtol(argv[1], &end, 10) : -1;
	if (rounds < 0 || *end) {
		fputs("usage: burn ROUNDS\n", stderr);
		return 2;
	}
	uint64_t sum = 0;
	for (long r = 0; r < rounds; r++) {
		memset(composite, 0, sizeof composite);
		for (long i = 2; i < LIMIT; i++) {
			if (composite[i]) continue;
			sum = sum * 31 + (uint64_t)(i + r);
			for (long j = i * 2; j < LIMIT; j += i) composite[j] = 1;
		}
	}
	printf("%" PRIu64 "\n", sum);
	return 0;
}
