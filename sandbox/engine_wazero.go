//go:build !cgo

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/compute-mesh/mesh/sandbox/wasi"
)

// engineVersion names the engine and the format of its native code; the version is the one in go.mod.
const engineVersion = "wazero v1.12.0"

// avoidSelects has programs rewritten without selects between floats, which wazero's compiler for amd64 gets wrong at times:
// https://github.com/wazero/wazero/issues/2534, mended after v1.12.0.
const avoidSelects = runtime.GOARCH == "amd64"

// wazeroEngine makes a runtime for each program, so that each has a directory of its own for its native code. One
// program runs at a time: the imports act on sys.
type wazeroEngine struct {
	sys *wasi.System
}

func newEngine() (engine, error) { return &wazeroEngine{}, nil }

// errStopped ends a program from an import.
var errStopped = errors.New("stopped")

func (e *wazeroEngine) close() {}

// moduleFile is the module as it is compiled; wazero needs it beside its native code.
const moduleFile = "module.wasm"

func (e *wazeroEngine) compile(wasm []byte, dir string) error {
	m, err := e.build(wasm, dir)
	if err != nil {
		return err
	}
	m.close()
	return os.WriteFile(filepath.Join(dir, moduleFile), wasm, 0o600)
}

func (e *wazeroEngine) load(dir string) (module, error) {
	wasm, err := os.ReadFile(filepath.Join(dir, moduleFile))
	if err != nil {
		return nil, err
	}
	return e.build(wasm, dir)
}

func (e *wazeroEngine) build(wasm []byte, dir string) (_ *wazeroModule, err error) {
	ctx := context.Background()
	cache, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return nil, err
	}
	features := api.CoreFeaturesV2 | experimental.CoreFeaturesExtendedConst
	m := &wazeroModule{engine: e, cache: cache}
	m.runtime = wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().
		WithCompilationCache(cache).WithCoreFeatures(features).WithDebugInfoEnabled(false))
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	host := m.runtime.NewHostModuleBuilder(wasi.Module)
	for _, f := range wasi.Functions() {
		var results []api.ValueType
		if !f.NoResult {
			results = []api.ValueType{api.ValueTypeI32}
		}
		host.NewFunctionBuilder().WithGoModuleFunction(e.wasiCall(f), wazeroTypes(f.Params), results).Export(f.Name)
	}
	if _, err = host.Instantiate(ctx); err != nil {
		return nil, err
	}
	host = m.runtime.NewHostModuleBuilder(hostModule)
	for _, f := range hostFunctions() {
		call := api.GoFunc(func(_ context.Context, stack []uint64) { f.call(e.sys, stack) })
		host.NewFunctionBuilder().WithGoFunction(call, wazeroTypes(f.params), nil).Export(f.name)
	}
	if _, err = host.Instantiate(ctx); err != nil {
		return nil, err
	}
	if m.compiled, err = m.runtime.CompileModule(ctx, wasm); err != nil {
		return nil, err
	}
	return m, nil
}

func wazeroTypes(letters string) []api.ValueType {
	var types []api.ValueType
	for _, l := range letters {
		if l == 'I' {
			types = append(types, api.ValueTypeI64)
		} else {
			types = append(types, api.ValueTypeI32)
		}
	}
	return types
}

func (e *wazeroEngine) wasiCall(f wasi.Function) api.GoModuleFunc {
	params := len(f.Params)
	return func(_ context.Context, mod api.Module, stack []uint64) {
		var guest []byte
		if memory := mod.Memory(); memory != nil {
			guest, _ = memory.Read(0, memory.Size())
		}
		errno := e.sys.Call(&f, guest, stack[:params])
		if e.sys.Stopped() != nil {
			panic(errStopped)
		}
		if !f.NoResult {
			stack[0] = uint64(errno)
		}
	}
}

type wazeroModule struct {
	engine   *wazeroEngine
	cache    wazero.CompilationCache
	runtime  wazero.Runtime
	compiled wazero.CompiledModule
}

func (m *wazeroModule) minMemory() int64 {
	if memory := m.compiled.ExportedMemories()["memory"]; memory != nil {
		return int64(memory.Min()) * WasmPage
	}
	return 0
}

func (m *wazeroModule) checkpoints() bool {
	return slices.ContainsFunc(m.compiled.ImportedFunctions(), func(f api.FunctionDefinition) bool {
		module, name, _ := f.Import()
		return module == hostModule && name == checkpointName
	})
}

func (m *wazeroModule) close() {
	ctx := context.Background()
	_ = m.runtime.Close(ctx) // nothing is open in it
	_ = m.cache.Close(ctx)
}

func (m *wazeroModule) run(sys *wasi.System, memory int64) (ending, error) {
	m.engine.sys = sys
	ctx := experimental.WithMemoryAllocator(context.Background(), linearMemory(memory))
	config := wazero.NewModuleConfig().WithName("").WithStartFunctions()
	instance, err := m.runtime.InstantiateModule(ctx, m.compiled, config)
	if err != nil {
		return m.ended(err)
	}
	defer func() { _ = instance.Close(ctx) }()
	_, err = instance.ExportedFunction("_start").Call(ctx)
	end, err := m.ended(err)
	end.memory = int64(instance.Memory().Size())
	return end, err
}

// stackOverflow is the one trap of wazero's that comes without its prefix.
const stackOverflow = "stack overflow"

// ended tells a trap from a stop that the system asked for and from an error of the engine. wazero's trap values are not
// exported: they are told by the prefix that they have.
func (m *wazeroModule) ended(err error) (ending, error) {
	if err == nil || m.engine.sys.Stopped() != nil {
		return ending{}, nil
	}
	first, _, _ := strings.Cut(err.Error(), "\n")
	if first == stackOverflow {
		return ending{trap: stackOverflow}, nil
	}
	if _, trap, found := strings.Cut(first, "wasm error: "); found {
		return ending{trap: strings.TrimSuffix(trap, " (recovered by wazero)")}, nil
	}
	return ending{}, fmt.Errorf("%s", first)
}

// linearMemory makes linear memories of at most that many bytes.
type linearMemory int64

// Allocate implements experimental.MemoryAllocator.
func (l linearMemory) Allocate(_, most uint64) experimental.LinearMemory {
	return &mapping{most: min(most, uint64(l)/WasmPage*WasmPage)}
}

// mapping is a linear memory that never moves: address space is taken for all of it when it is first needed, and the
// operating system gives pages as they are touched.
type mapping struct {
	most  uint64
	bytes []byte
}

// Reallocate implements experimental.LinearMemory; beyond the limit it returns nil, and the program's memory.grow fails.
func (m *mapping) Reallocate(size uint64) []byte {
	if size > m.most {
		return nil
	}
	if m.bytes == nil {
		b, err := reserve(max(m.most, 1))
		if err != nil {
			return nil
		}
		m.bytes = b
	}
	return m.bytes[:size]
}

// Free implements experimental.LinearMemory.
func (m *mapping) Free() {
	if m.bytes != nil {
		unreserve(m.bytes)
		m.bytes = nil
	}
}
