// wordcount counts words: the map and the reduce of a word count in one program.
//
//   wordcount count   reads text on standard input; a word is a run of ASCII letters, folded to lower case
//   wordcount merge   reads the output of one or more counts, joined, and sums it
//
// Both print "word count" lines, sorted by word, so what merge prints can be merged again.
// It is plain C with read and write, builds natively with any cc, and is made to be fast: it is a benchmark too.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BUFFER = 1 << 20, ARENA = 1 << 20 };

typedef struct {
	char *word; // NULL: the place is free
	uint32_t hash, length;
	uint64_t count;
} entry;

static entry *table; // open addressing; at most half full
static uint32_t mask, used;

static void fail(const char *what) {
	fprintf(stderr, "wordcount: %s\n", what);
	exit(1);
}

static void *need(void *p) {
	if (!p) fail("out of memory");
	return p;
}

// keep copies a word to memory that stays.
static char *keep(const char *word, uint32_t n) {
	static char *free_at, *end;
	if ((size_t)(end - free_at) < n) {
		size_t size = n > ARENA ? n : ARENA;
		free_at = need(malloc(size));
		end = free_at + size;
	}
	char *kept = free_at;
	memcpy(kept, word, n);
	free_at += n;
	return kept;
}

static void grow(void) {
	entry *old = table;
	uint32_t size = old ? mask + 1 : 0, bigger = old ? 2 * size : 1 << 14;
	table = need(calloc(bigger, sizeof *table));
	mask = bigger - 1;
	for (uint32_t i = 0; i < size; i++) {
		if (!old[i].word) continue;
		uint32_t at = old[i].hash & mask;
		while (table[at].word) at = (at + 1) & mask;
		table[at] = old[i];
	}
	free(old);
}

static inline int same(const char *a, const char *b, uint32_t n) {
	while (n--)
		if (*a++ != *b++) return 0;
	return 1;
}

static inline void add(const char *word, uint32_t n, uint32_t hash, uint64_t count) {
	hash ^= hash >> 15;
	uint32_t at = hash & mask;
	for (;; at = (at + 1) & mask) {
		entry *e = &table[at];
		if (!e->word) break;
		if (e->hash == hash && e->length == n && same(e->word, word, n)) {
			e->count += count;
			return;
		}
	}
	table[at] = (entry){keep(word, n), hash, n, count};
	if (++used > mask / 2) grow();
}

// input is a buffer with a piece of standard input, with a NUL behind it, and room for what it could not use up.
static char *input;
static size_t room = BUFFER, have;

// more reads on behind the `have` bytes that were kept; 0 at the end.
static size_t more(void) {
	if (have == room) room *= 2;
	input = need(realloc(input, room + 1));
	ssize_t n = read(0, input + have, room - have);
	if (n < 0) fail("cannot read standard input");
	have += n;
	input[have] = 0;
	return n;
}

static void rest(const char *from, const char *end) {
	have = end - from;
	memmove(input, from, have);
}

static inline uint32_t mix(uint32_t h, unsigned char c) { return (h ^ c) * 0x01000193u; }

static void count(void) {
	static unsigned char fold[256]; // the lower-case letter, or 0
	for (int c = 'a'; c <= 'z'; c++) fold[c] = fold[c - 32] = c;
	while (more()) {
		unsigned char *p = (unsigned char *)input, *end = p + have, *word, c;
		for (;;) {
			while (!fold[*p] && p < end) p++;
			word = p;
			uint32_t h = 0;
			while ((c = fold[*p])) {
				*p++ = c;
				h = mix(h, c);
			}
			if (p >= end) break; // the word may go on
			add((char *)word, p - word, h, 1);
		}
		rest((char *)word, (char *)end);
	}
	if (have) {
		uint32_t h = 0;
		for (size_t i = 0; i < have; i++) h = mix(h, input[i]);
		add(input, have, h, 1);
	}
}

static void merge_line(const char *p, const char *end) {
	const char *word = p;
	uint32_t h = 0;
	while (p < end && *p != ' ') h = mix(h, *p++);
	uint32_t n = p - word;
	uint64_t sum = 0;
	if (n == 0 || p + 1 >= end) fail("merge: a line is not \"word count\"");
	for (p++; p < end; p++) {
		if (*p < '0' || *p > '9') fail("merge: a line is not \"word count\"");
		sum = sum * 10 + (*p - '0');
	}
	add(word, n, h, sum);
}

static void merge(void) {
	while (more()) {
		char *p = input, *end = input + have, *newline;
		while ((newline = memchr(p, '\n', end - p))) {
			merge_line(p, newline);
			p = newline + 1;
		}
		rest(p, end);
	}
	if (have) merge_line(input, input + have);
}

// item is a word to be sorted: most are told apart by their first eight bytes, as a number.
typedef struct {
	uint64_t first;
	entry *e;
} item;

static inline int less(const item *a, const item *b) {
	if (a->first != b->first) return a->first < b->first;
	uint32_t n = a->e->length < b->e->length ? a->e->length : b->e->length;
	int d = memcmp(a->e->word, b->e->word, n);
	return d ? d < 0 : a->e->length < b->e->length;
}

// sort is a quicksort with the median of three, for libc's may be a slow one. No two words are equal, and they come
// in the order of their hashes.
static void sort(item *v, uint32_t n) {
	while (n > 16) {
		item *mid = v + n / 2, *last = v + n - 1, t;
#define SWAP(a, b) (t = *(a), *(a) = *(b), *(b) = t)
		if (less(mid, v)) SWAP(mid, v);
		if (less(last, mid)) SWAP(last, mid);
		if (less(mid, v)) SWAP(mid, v);
		item pivot = *mid;
		uint32_t i = 0, j = n - 1;
		for (;;) {
			while (less(&v[i], &pivot)) i++;
			while (less(&pivot, &v[j])) j--;
			if (i >= j) break;
			SWAP(&v[i], &v[j]);
			i++;
			j--;
		}
		uint32_t left = j + 1; // v[0..left) is not above the pivot, the rest not below
		if (left < n - left) {
			sort(v, left);
			v += left;
			n -= left;
		} else {
			sort(v + left, n - left);
			n = left;
		}
	}
	for (uint32_t i = 1; i < n; i++) {
		item t = v[i];
		uint32_t j = i;
		for (; j > 0 && less(&t, &v[j - 1]); j--) v[j] = v[j - 1];
		v[j] = t;
	}
}

static void put(const char *p, size_t n) {
	while (n) {
		ssize_t w = write(1, p, n);
		if (w < 0) fail("cannot write standard output");
		p += w;
		n -= w;
	}
}

static void print(void) {
	uint32_t n = 0;
	item *words = need(malloc((used + 1) * sizeof *words));
	for (uint32_t i = 0; i <= mask; i++) {
		entry *e = &table[i];
		if (!e->word) continue;
		uint64_t first = 0;
		for (uint32_t k = 0; k < 8; k++) first = first << 8 | (k < e->length ? (unsigned char)e->word[k] : 0);
		words[n++] = (item){first, e};
	}
	sort(words, n);
	char *out = need(malloc(BUFFER));
	size_t at = 0;
	for (uint32_t i = 0; i < n; i++) {
		const entry *e = words[i].e;
		if (at + e->length + 24 > BUFFER) {
			put(out, at);
			at = 0;
		}
		if (e->length + 24 > BUFFER)
			put(e->word, e->length);
		else {
			memcpy(out + at, e->word, e->length);
			at += e->length;
		}
		char digits[20];
		int d = 0;
		for (uint64_t c = e->count; d == 0 || c; c /= 10) digits[d++] = '0' + c % 10;
		out[at++] = ' ';
		while (d) out[at++] = digits[--d];
		out[at++] = '\n';
	}
	put(out, at);
}

int main(int argc, char **argv) {
	grow();
	if (argc == 2 && !strcmp(argv[1], "count"))
		count();
	else if (argc == 2 && !strcmp(argv[1], "merge"))
		merge();
	else {
		fputs("usage: wordcount count|merge <input >output\n", stderr);
		return 2;
	}
	print();
	return 0;
}
