// Package guest is what a task's program in Go can import from the mesh; mesh.h beside it is the same for C and C++.
//
// A program goes on elsewhere from its last checkpoint: it begins at main with all files beneath StateDir as they were, and
// nothing else. So it writes there what it needs to go on, the output it has made so far included, and reads it when it
// starts. Standard input and /in are given from the beginning, /out and standard output are empty again. Go's own
// runtime draws random numbers before main: a program whose result depends on random numbers keeps a generator's state
// in StateDir, or it gives another result when it was interrupted.
//
// Built for another target than wasip1, the functions do nothing and StateDir is the working directory: the same program
// runs natively, and goes on from the files it finds. It promises no more than the imports do, and imports nothing itself.
package guest
