package sandbox

import (
	"strings"

	"github.com/compute-mesh/mesh/sandbox/canonical"
	"github.com/compute-mesh/mesh/sandbox/wasi"
)

// maxModules is how many programs a child keeps loaded: a few stages of a few jobs.
const maxModules = 8

// engine turns WebAssembly into native code and runs it. There is one for each way to build the package.
type engine interface {
	// compile stores native code for a module in a directory that is empty, but for what a compile before it left.
	compile(wasm []byte, dir string) error
	// load makes a program ready from what compile stored.
	load(dir string) (module, error)
	close()
}

// module is a loaded program.
type module interface {
	// minMemory is the linear memory in bytes that the program starts with.
	minMemory() int64
	// checkpoints reports whether the program imports checkpoint, and so chooses itself when its state is whole.
	checkpoints() bool
	// run runs the program from its beginning to its end. That it stopped for a reason of the system's is not an error.
	run(sys *wasi.System, memory int64) (ending, error)
	close()
}

// ending is how a run ended. With an empty trap, the system's Stopped tells, and nil there means a return from _start.
type ending struct {
	trap   string
	memory int64 // bytes of linear memory at the end
}

// codeVersion names what native code is made with: the engine, and how a module is rewritten before.
const codeVersion = engineVersion + ", NaNs " + canonical.Version

// compileCanonical has the engine compile the program with canonical NaNs. A module that cannot be rewritten is one that
// the engine refuses, and it has better words for why.
func compileCanonical(e engine, wasm []byte, dir string) error {
	rewrite := canonical.NaN
	if avoidSelects {
		rewrite = canonical.Branching
	}
	rewritten, err := rewrite(wasm)
	if err == nil {
		return e.compile(rewritten, dir)
	}
	if refused := e.compile(wasm, dir); refused != nil {
		return refused
	}
	return err
}

// EngineName is "wasmtime" or "wazero".
func EngineName() string {
	name, _, _ := strings.Cut(engineVersion, " ")
	return name
}

// hostModule is the import module of what the mesh itself offers to programs.
const hostModule = "mesh"

// hostFunction is an import from hostModule.
type hostFunction struct {
	name   string
	params string // as wasi.Function's
	call   func(sys *wasi.System, args []uint64)
}

// checkpointName is the import that a program calls when its /state is whole.
const checkpointName = "checkpoint"

// hostFunctions are the imports that the mesh offers.
func hostFunctions() []hostFunction {
	return []hostFunction{
		{name: checkpointName, call: func(sys *wasi.System, _ []uint64) { sys.Checkpoint() }},
		{name: "progress", params: "i", call: func(sys *wasi.System, a []uint64) { sys.Progress(uint32(a[0])) }},
	}
}
