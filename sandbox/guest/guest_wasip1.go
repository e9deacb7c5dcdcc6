package guest

// StateDir is the directory that survives.
const StateDir = "/state"

//go:wasmimport mesh checkpoint
func checkpoint()

//go:wasmimport mesh progress
func progress(permille uint32)

// Checkpoint says that the files beneath StateDir are whole. It may be called often: once in a second, by default, a snapshot
// is made, and all other calls return at once. It cannot fail: where there is no room for a snapshot an older one is kept.
// A program without a call of Checkpoint leaves it to the mesh to find a moment when no file in StateDir is open for
// writing.
func Checkpoint() { checkpoint() }

// Progress says how much of the task is done, in permille, for people to see. It may be called often; what is out of
// range is brought into it.
func Progress(permille int) { progress(uint32(min(max(permille, 0), 1000))) }
