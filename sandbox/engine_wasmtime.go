//go:build cgo

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/bytecodealliance/wasmtime-go/v44"

	"github.com/compute-mesh/mesh/sandbox/wasi"
)

// engineVersion names the engine and the format of its native code; the version is the one in go.mod.
const engineVersion = "wasmtime v44.0.0"

// avoidSelects has programs rewritten without selects between floats.
const avoidSelects = false

const (
	// maxWasmStack is the native stack that a program may use, in bytes; threads have at least 2 MiB. wazero has its own.
	maxWasmStack = 1 << 20
	// heapGrowth is by how many percent a child's heap may grow before it is collected: programs' memories are not in it, and
	// what is makes some 2 MiB, with a few KiB of garbage a task.
	heapGrowth = 200
)

// wasmtimeEngine is one engine and one set of imports for all programs. One program runs at a time: the imports act
// on the fields below.
type wasmtimeEngine struct {
	engine *wasmtime.Engine
	linker *wasmtime.Linker

	memory *wasmtime.Memory // nil until the instance is there
	sys    *wasi.System
}

func newEngine() (engine, error) {
	debug.SetGCPercent(heapGrowth)
	c := wasmtime.NewConfig()
	c.SetMaxWasmStack(maxWasmStack)
	// What wazero does not have, or what WebAssembly leaves open to the machine, programs cannot use.
	c.SetWasmRelaxedSIMD(false)
	c.SetWasmMultiMemory(false)
	c.SetWasmMemory64(false)
	c.SetWasmThreads(false)
	c.SetWasmTailCall(false)
	c.SetWasmFunctionReferences(false)
	c.SetWasmGC(false)
	c.SetWasmWideArithmetic(false)
	poolMemory(c)
	e := &wasmtimeEngine{engine: wasmtime.NewEngineWithConfig(c)}
	e.linker = wasmtime.NewLinker(e.engine)
	for _, f := range wasi.Functions() {
		var results []*wasmtime.ValType
		if !f.NoResult {
			results = append(results, wasmtime.NewValType(wasmtime.KindI32))
		}
		t := wasmtime.NewFuncType(wasmtimeTypes(f.Params), results)
		if err := e.linker.FuncNew(wasi.Module, f.Name, t, e.wasiCall(f)); err != nil {
			return nil, fmt.Errorf("sandbox: wasmtime: %s: %w", f.Name, err)
		}
	}
	for _, f := range hostFunctions() {
		t := wasmtime.NewFuncType(wasmtimeTypes(f.params), nil)
		call := func(_ *wasmtime.Caller, vals []wasmtime.Val) ([]wasmtime.Val, *wasmtime.Trap) {
			var args [10]uint64
			f.call(e.sys, arguments(&args, vals))
			return nil, nil
		}
		if err := e.linker.FuncNew(hostModule, f.name, t, call); err != nil {
			return nil, fmt.Errorf("sandbox: wasmtime: %s: %w", f.name, err)
		}
	}
	return e, nil
}

func wasmtimeTypes(letters string) []*wasmtime.ValType {
	var types []*wasmtime.ValType
	for _, l := range letters {
		kind := wasmtime.KindI32
		if l == 'I' {
			kind = wasmtime.KindI64
		}
		types = append(types, wasmtime.NewValType(kind))
	}
	return types
}

func arguments(into *[10]uint64, vals []wasmtime.Val) []uint64 {
	for i, v := range vals {
		if v.Kind() == wasmtime.KindI64 {
			into[i] = uint64(v.I64())
		} else {
			into[i] = uint64(uint32(v.I32()))
		}
	}
	return into[:len(vals)]
}

// stopped is the message of the trap with which an import ends a program; it is never shown.
const stopped = "stopped"

func (e *wasmtimeEngine) wasiCall(f wasi.Function) func(*wasmtime.Caller, []wasmtime.Val) ([]wasmtime.Val, *wasmtime.Trap) {
	return func(c *wasmtime.Caller, vals []wasmtime.Val) ([]wasmtime.Val, *wasmtime.Trap) {
		var args [10]uint64
		a := arguments(&args, vals)
		var guest []byte
		if e.memory == nil { // a start function runs before the instance is known
			if x := c.GetExport("memory"); x != nil && x.Memory() != nil {
				guest = x.Memory().UnsafeData(c)
			}
		} else {
			guest = e.memory.UnsafeData(c)
		}
		errno := e.sys.Call(&f, guest, a)
		if e.sys.Stopped() != nil {
			return nil, wasmtime.NewTrap(stopped)
		}
		if f.NoResult {
			return nil, nil
		}
		return []wasmtime.Val{wasmtime.ValI32(int32(errno))}, nil
	}
}

const wasmtimeFile = "module"

func (e *wasmtimeEngine) compile(wasm []byte, dir string) error {
	m, err := wasmtime.NewModule(e.engine, wasm)
	if err != nil {
		return err
	}
	defer m.Close()
	code, err := m.Serialize()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, wasmtimeFile), code, 0o600)
}

func (e *wasmtimeEngine) load(dir string) (module, error) {
	m, err := wasmtime.NewModuleDeserializeFile(e.engine, filepath.Join(dir, wasmtimeFile))
	if err != nil {
		return nil, err
	}
	loaded := &wasmtimeModule{engine: e, module: m}
	for _, x := range m.Exports() {
		if t := x.Type().MemoryType(); t != nil {
			loaded.memory = int64(min(t.Minimum(), 1<<16)) * WasmPage
		}
	}
	for _, x := range m.Imports() {
		if name := x.Name(); x.Module() == hostModule && name != nil && *name == checkpointName {
			loaded.saves = true
		}
	}
	return loaded, nil
}

func (e *wasmtimeEngine) close() {
	e.linker.Close()
	e.engine.Close()
}

type wasmtimeModule struct {
	engine *wasmtimeEngine
	module *wasmtime.Module
	memory int64
	saves  bool
}

func (m *wasmtimeModule) minMemory() int64 { return m.memory }

func (m *wasmtimeModule) checkpoints() bool { return m.saves }

func (m *wasmtimeModule) close() { m.module.Close() }

func (m *wasmtimeModule) run(sys *wasi.System, memory int64) (ending, error) {
	e := m.engine
	store := wasmtime.NewStore(e.engine)
	defer store.Close()
	store.Limiter(memory, maxTable, 1, -1, 1)
	e.sys, e.memory = sys, nil
	instance, err := e.linker.Instantiate(store, m.module)
	if err != nil {
		return e.ended(err)
	}
	e.memory = instance.GetExport(store, "memory").Memory()
	_, err = instance.GetFunc(store, "_start").Call(store)
	end, err := e.ended(err)
	end.memory = int64(e.memory.DataSize(store))
	return end, err
}

// ended tells a trap from a stop that the system asked for and from an error of the engine.
func (e *wasmtimeEngine) ended(err error) (ending, error) {
	var trap *wasmtime.Trap
	switch {
	case err == nil || e.sys.Stopped() != nil:
		return ending{}, nil
	case errors.As(err, &trap):
		return ending{trap: trapText(trap)}, nil
	default:
		return ending{}, err
	}
}

// trapText is what happened in words that both engines share, where the trap has a code.
func trapText(t *wasmtime.Trap) string {
	code := t.Code()
	if code == nil {
		first, _, _ := strings.Cut(t.Message(), "\n")
		return first
	}
	switch *code {
	case wasmtime.StackOverflow:
		return "stack overflow"
	case wasmtime.MemoryOutOfBounds:
		return "out of bounds memory access"
	case wasmtime.TableOutOfBounds:
		return "out of bounds table access"
	case wasmtime.IndirectCallToNull, wasmtime.BadSignature:
		return "invalid indirect call"
	case wasmtime.IntegerOverflow:
		return "integer overflow"
	case wasmtime.IntegerDivisionByZero:
		return "integer divide by zero"
	case wasmtime.BadConversionToInteger:
		return "invalid conversion to integer"
	case wasmtime.UnreachableCodeReached:
		return "unreachable"
	default:
		return fmt.Sprintf("trap %d", *code)
	}
}
