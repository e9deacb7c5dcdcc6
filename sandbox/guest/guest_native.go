//go:build !wasip1

package guest

// StateDir is the directory that survives, as files of a native program do.
const StateDir = "."

// Checkpoint does nothing: what a native program has written is there.
func Checkpoint() {}

// Progress does nothing.
func Progress(int) {}
