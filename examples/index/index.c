// index prints which task it is: its argument, or else MESH_TASK_INDEX.

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
	const char *index = argc > 1 ? argv[1] : getenv("MESH_TASK_INDEX");
	if (!index) {
		fputs("index: no argument and no MESH_TASK_INDEX\n", stderr);
		return 2;
	}
	puts(index);
	return 0;
}
