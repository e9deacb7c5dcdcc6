package sandbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/compute-mesh/mesh/sandbox/wasi"
)

// ErrNotProgram is in every error of Check.
var ErrNotProgram = errors.New("not a program that the mesh can run")

// Limits of what Check reads. Real programs are far below: GoAWK has 16 imports, one memory.
const (
	maxImports = 1000
	maxExports = 100_000
	// maxTables and maxTable bound a program's tables and the elements of each, at eight bytes: a child has room for
	// all of them, 32 MiB, beside a program's memory. Python's interpreter has one table of 10,000.
	maxTables = 4
	maxTable  = 1 << 20
)

// Check reports why a module cannot be a task's program, as far as its outside shows: it must be a WebAssembly module,
// not a component, of at most maxSize bytes, export _start and a memory of its own, and import nothing but functions that
// are offered. The code inside is checked when it is compiled. The source is the WebAssembly core specification, 5.5.
func Check(wasm []byte, maxSize int64) error {
	if int64(len(wasm)) > maxSize {
		return refuse("it has %d bytes, the limit is %d; strip debug information, or build with -O2", len(wasm), maxSize)
	}
	switch {
	case len(wasm) < 8 || string(wasm[:4]) != "\x00asm":
		return refuse("it is not WebAssembly; build it for wasm32-wasi (C, Rust: wasm32-wasip1) or with GOOS=wasip1 GOARCH=wasm (Go)")
	case binary.LittleEndian.Uint16(wasm[6:]) != 0:
		return refuse("it is a component; build a core module for WASI preview 1 instead (target wasm32-wasip1)")
	case binary.LittleEndian.Uint32(wasm[4:]) != 1:
		return refuse("it is WebAssembly version %d, not 1", binary.LittleEndian.Uint32(wasm[4:]))
	}
	s := shape{}
	r := &wasmReader{b: wasm[8:]}
	for len(r.b) > 0 && r.err == nil {
		id := r.byte()
		section := &wasmReader{b: r.take(r.u32())}
		if r.err != nil {
			break
		}
		if err := s.section(id, section); err != nil {
			return err
		}
	}
	if r.err != nil {
		return r.err
	}
	return s.verdict()
}

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrNotProgram}, args...)...)
}

// shape is what Check has seen of a module.
type shape struct {
	start, memory bool
}

func (s *shape) verdict() error {
	switch {
	case !s.start:
		return refuse("it exports no function _start; build a command, not a library or reactor")
	case !s.memory:
		return refuse("it exports no memory with the name \"memory\"")
	}
	return nil
}

// Sections and kinds of imports and exports.
const (
	sectionImport = 2
	sectionTable  = 4
	sectionMemory = 5
	sectionExport = 7
	sectionLast   = 12 // the data count; beyond are proposals

	kindFunction = 0
	kindMemory   = 2
)

func (s *shape) section(id byte, r *wasmReader) error {
	switch {
	case id == sectionImport:
		return imports(r)
	case id == sectionTable:
		return tables(r)
	case id == sectionMemory:
		return memories(r)
	case id == sectionExport:
		return s.exports(r)
	case id > sectionLast:
		return refuse("it uses a feature that is not offered (section %d); build it without exceptions and other proposals", id)
	}
	return nil
}

// offered is the functions that programs may import, by module.
func offered() map[string][]string {
	names := map[string][]string{}
	for _, f := range wasi.Functions() {
		names[wasi.Module] = append(names[wasi.Module], f.Name)
	}
	for _, f := range hostFunctions() {
		names[hostModule] = append(names[hostModule], f.name)
	}
	return names
}

func imports(r *wasmReader) error {
	n := r.u32()
	if n > maxImports {
		return refuse("it has %d imports, the limit is %d", n, maxImports)
	}
	have := offered()
	for range n {
		module, name, kind := r.name(), r.name(), r.byte()
		if r.err != nil {
			return r.err
		}
		if kind != kindFunction {
			return refuse("it imports %q.%q, which is not a function; link it as a whole, without an imported memory or table", module, name)
		}
		r.u32() // its type; the linker checks it
		switch names, known := have[module]; {
		case !known:
			return refuse("it imports from %q; only %q and %q are offered", module, wasi.Module, hostModule)
		case !slices.Contains(names, name):
			return refuse("it imports %q.%q, which is not offered", module, name)
		}
	}
	return r.err
}

func tables(r *wasmReader) error {
	n := r.u32()
	if n > maxTables {
		return refuse("it has %d tables, the limit is %d", n, maxTables)
	}
	for range n {
		r.byte() // what it holds; the engine checks it
		flags, elements := r.byte(), r.u32()
		if flags&1 != 0 {
			r.u32() // the most that it may grow to
		}
		switch {
		case r.err != nil:
			return r.err
		case flags > 1:
			return refuse("its table is of a kind that is not offered")
		case elements > maxTable:
			return refuse("its table has %d elements, the limit is %d", elements, maxTable)
		}
	}
	return r.err
}

func memories(r *wasmReader) error {
	n := r.u32()
	if n > 1 {
		return refuse("it has %d memories; only one is offered", n)
	}
	if n == 1 {
		switch flags := r.byte(); {
		case flags&2 != 0:
			return refuse("its memory is shared; build it without threads")
		case flags&4 != 0:
			return refuse("its memory has 64-bit addresses; build it for wasm32")
		case flags > 7:
			return refuse("its memory is of a kind that is not offered")
		}
	}
	return r.err
}

func (s *shape) exports(r *wasmReader) error {
	n := r.u32()
	if n > maxExports {
		return refuse("it has %d exports, the limit is %d", n, maxExports)
	}
	for range n {
		name, kind := r.name(), r.byte()
		r.u32()
		s.start = s.start || name == "_start" && kind == kindFunction
		s.memory = s.memory || name == "memory" && kind == kindMemory
		if r.err != nil {
			break
		}
	}
	return r.err
}

// wasmReader reads the encodings of the binary format. After an error it reads zeros.
type wasmReader struct {
	b   []byte
	err error
}

func (r *wasmReader) take(n uint32) []byte {
	if r.err == nil && uint64(n) > uint64(len(r.b)) {
		r.err = refuse("it is cut off or damaged")
	}
	if r.err != nil {
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *wasmReader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

// u32 reads an unsigned LEB128 number.
func (r *wasmReader) u32() uint32 {
	v := uint64(0)
	for shift := 0; shift < 35; shift += 7 {
		b := r.byte()
		v |= uint64(b&0x7f) << shift
		if b&0x80 == 0 {
			break
		}
	}
	if v > 1<<32-1 {
		r.err = errors.Join(r.err, refuse("it is damaged: a number is too large"))
		return 0
	}
	return uint32(v)
}

func (r *wasmReader) name() string { return string(r.take(r.u32())) }
