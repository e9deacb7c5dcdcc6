// mandelbrot counts the points of a square grid, as wide as its argument says, that are in the Mandelbrot set as far as 50
// rounds tell: 64-bit floating point in a loop that ends unpredictably.

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
	long size = argc == 2 ? strtol(argv[1], NULL, 10) : 0, inside = 0;
	for (long row = 0; row < size; row++) {
		double ci = 2.0 * (double)row / (double)size - 1.0;
		for (long column = 0; column < size; column++) {
			double cr = 2.0 * (double)column / (double)size - 1.5, r = 0, i = 0, rr = 0, ii = 0;
			int n = 0;
			while (n < 50 && rr + ii <= 4.0) {
				i = 2 * r * i + ci;
				r = rr - ii + cr;
				rr = r * r;
				ii = i * i;
				n++;
			}
			inside += n == 50;
		}
	}
	printf("%ld\n", inside);
	return 0;
}
