// nbody moves the Sun and the four large planets by as many steps of a hundredth of a year as its argument says, and
// prints the energy of the system before and after: 64-bit floating point, in a loop that fits any cache.

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { BODIES = 5 };

static const double pi = 3.141592653589793, year = 365.24;

typedef struct {
	double x[3], v[3], mass;
} body;

static body bodies[BODIES] = {
	{{0, 0, 0}, {0, 0, 0}, 1},
	{{4.84143144246472090e+00, -1.16032004402742839e+00, -1.03622044471123109e-01},
	 {1.66007664274403694e-03, 7.69901118419740425e-03, -6.90460016972063023e-05}, 9.54791938424326609e-04},
	{{8.34336671824457987e+00, 4.12479856412430479e+00, -4.03523417114321381e-01},
	 {-2.76742510726411577e-03, 4.99852801234917238e-03, 2.30417297573763929e-05}, 2.85885980666130812e-04},
	{{1.28943695621391310e+01, -1.51111514016986312e+01, -2.23307578892655734e-01},
	 {2.96460137564761618e-03, 2.37847173959480950e-03, -2.96589568540237556e-05}, 4.36624404335156298e-05},
	{{1.53796971148509165e+01, -2.59193146099879641e+01, 1.79258772950371181e-01},
	 {2.68067772490389322e-03, 1.62824170038242295e-03, -9.51592254519715870e-05}, 5.15138902046611451e-05},
};

static void prepare(void) {
	double p[3] = {0, 0, 0}, sun = 4 * pi * pi;
	for (int i = 0; i < BODIES; i++) {
		bodies[i].mass *= sun;
		for (int k = 0; k < 3; k++) {
			bodies[i].v[k] *= year;
			p[k] += bodies[i].v[k] * bodies[i].mass;
		}
	}
	for (int k = 0; k < 3; k++) bodies[0].v[k] = -p[k] / sun;
}

static void step(double dt) {
	for (int i = 0; i < BODIES; i++) {
		body *a = &bodies[i];
		for (int j = i + 1; j < BODIES; j++) {
			body *b = &bodies[j];
			double d[3], square = 0;
			for (int k = 0; k < 3; k++) {
				d[k] = a->x[k] - b->x[k];
				square += d[k] * d[k];
			}
			double force = dt / (square * sqrt(square));
			for (int k = 0; k < 3; k++) {
				a->v[k] -= d[k] * b->mass * force;
				b->v[k] += d[k] * a->mass * force;
			}
		}
	}
	for (int i = 0; i < BODIES; i++)
		for (int k = 0; k < 3; k++) bodies[i].x[k] += dt * bodies[i].v[k];
}

static double energy(void) {
	double e = 0;
	for (int i = 0; i < BODIES; i++) {
		body *a = &bodies[i];
		e += a->mass * (a->v[0] * a->v[0] + a->v[1] * a->v[1] + a->v[2] * a->v[2]) / 2;
		for (int j = i + 1; j < BODIES; j++) {
			body *b = &bodies[j];
			double x = a->x[0] - b->x[0], y = a->x[1] - b->x[1], z = a->x[2] - b->x[2];
			e -= a->mass * b->mass / sqrt(x * x + y * y + z * z);
		}
	}
	return e;
}

int main(int argc, char **argv) {
	long steps = argc == 2 ? strtol(argv[1], NULL, 10) : 0;
	prepare();
	printf("%.9f\n", energy());
	for (long i = 0; i < steps; i++) step(0.01);
	printf("%.9f\n", energy());
	return 0;
}
