/*
 * mesh.h is what a task's program in C or C++ can import from the mesh. Compile with -I sandbox/guest, or copy the file: it has
 * no other parts. Built for another target than WebAssembly, the functions do nothing and MESH_STATE is the working directory.
 *
 * A program goes on elsewhere from its last checkpoint: it begins at main with all files beneath MESH_STATE as they were, and
 * nothing else. So it writes there what it needs to go on, the output it has made so far included, and reads it
 * when it starts. Standard input and /in are given from the beginning, /out and standard output are empty again.
 */
#ifndef MESH_H
#define MESH_H

#include <stdint.h>

#ifdef __wasm__

/* MESH_STATE is the directory that survives. */
#define MESH_STATE "/state"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * mesh_checkpoint says that the files beneath MESH_STATE are whole: close or flush them before. It may be called often: once
 * in a second, by default, a snapshot is made, and all other calls return at once. It cannot fail: where
 * there is no room for a snapshot an older one is kept.
 */
__attribute__((import_module("mesh"), import_name("checkpoint"))) void mesh_checkpoint(void);

/* mesh_progress says how much of the task is done, in permille, for people to see. It may be called often. */
__attribute__((import_module("mesh"), import_name("progress"))) void mesh_progress(uint32_t permille);

#ifdef __cplusplus
}
#endif

#else

#define MESH_STATE "."
static inline void mesh_checkpoint(void) {}
static inline void mesh_progress(uint32_t permille) { (void)permille; }

#endif
#endif
