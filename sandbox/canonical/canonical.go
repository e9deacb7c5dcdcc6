// Package canonical rewrites a WebAssembly module so that no program sees a NaN that depends on the machine.
//
// WebAssembly leaves the sign and payload of a NaN that arithmetic makes to the machine: x86 and ARM differ, and a
// program that prints one shows it ("-nan"). So a result is followed by "if it is not equal to itself, take the canonical
// NaN", where the program can see its bits: where it is stored, reinterpreted, handed over. A result that only more
// arithmetic or a comparison reads is left as it is: they tell a NaN from a number, never one NaN from another, and what
// they make of it is made canonical where that is seen. NaNs that a program loads, names or moves keep their bits.
//
// What a program sees is what it would see if each result were made canonical at once. The operations are those of
// Cranelift's pass that does so, nan_canonicalization.
//
// Modules are WebAssembly 2.0. The package does not validate: what it cannot read is an error, what it can read and is
// not valid stays so, for the engine to refuse. The work is linear in the size of the module.
package canonical

import (
	"bytes"
	"errors"
	"fmt"
)

// Version changes whenever the package makes another module of the same one: native code made of an older is of no use.
const Version = "3"

// Sections and forms of the binary format.
const (
	sectionType     = 1
	sectionImport   = 2
	sectionFunction = 3
	sectionGlobal   = 6
	sectionCode     = 10
	formFunction    = 0x60
	headerBytes     = 8
)

// Limits of what is read, those of wasmtime; without them a few bytes could stand for much work.
const (
	maxValues = 1000   // parameters of a function or block, and results
	maxLocals = 50_000 // of a function, with its parameters
)

// ErrFormat is in the error for a module that cannot be read.
var ErrFormat = errors.New("canonical: not a module of WebAssembly 2.0")

// NaN returns the module with canonical NaNs wherever they are seen. The result shares no memory with wasm.
func NaN(wasm []byte) ([]byte, error) { return rewrite(wasm, false) }

// Branching is NaN, and puts an "if" in the place of each select between floats or vectors: for an engine that cannot be
// trusted with those. What the module does is the same.
func Branching(wasm []byte) ([]byte, error) { return rewrite(wasm, true) }

func rewrite(wasm []byte, branching bool) ([]byte, error) {
	if len(wasm) < headerBytes {
		return nil, ErrFormat
	}
	out := bytes.NewBuffer(make([]byte, 0, len(wasm)+len(wasm)/8))
	out.Write(wasm[:headerBytes])
	r := &reader{b: wasm[headerBytes:]}
	m := module{branching: branching}
	for len(r.b) > 0 {
		id := r.byte()
		section := &reader{b: r.take(r.u32())}
		if r.failed {
			return nil, ErrFormat
		}
		content := section.b
		switch id {
		case sectionType:
			m.readTypes(section)
		case sectionImport:
			m.readImports(section)
		case sectionFunction:
			m.readFunctions(section)
		case sectionGlobal:
			m.readGlobals(section)
		case sectionCode:
			var err error
			if content, err = m.code(section); err != nil {
				return nil, err
			}
		}
		if section.failed {
			return nil, fmt.Errorf("%w: section %d", ErrFormat, id)
		}
		out.WriteByte(id)
		putU32(out, uint32(len(content)))
		out.Write(content)
	}
	return out.Bytes(), nil
}

// module is what the code section is read with: the types of functions.
type module struct {
	types    []functionType
	typeOf   []uint32 // by function, the imported ones first
	imported int
	globals  []byte // types, the imported ones first

	branching bool
}

type functionType struct{ params, results []byte }

func (m *module) readTypes(r *reader) {
	for n := r.u32(); n > 0 && !r.failed; n-- {
		if r.byte() != formFunction {
			r.failed = true
		}
		t := functionType{params: r.take(r.u32())}
		t.results = r.take(r.u32())
		r.failed = r.failed || len(t.params) > maxValues || len(t.results) > maxValues
		m.types = append(m.types, t)
	}
}

func (m *module) readImports(r *reader) {
	for n := r.u32(); n > 0 && !r.failed; n-- {
		r.take(r.u32())
		r.take(r.u32())
		switch kind := r.byte(); kind {
		case 0: // function
			m.typeOf = append(m.typeOf, r.u32())
			m.imported++
		case 1, 2: // table, memory
			if kind == 1 {
				r.byte()
			}
			limits := r.byte()
			r.skip(1 + int(limits&1))
		case 3: // global
			if b := r.take(2); b != nil {
				m.globals = append(m.globals, b[0])
			}
		default:
			r.failed = true
		}
	}
}

func (m *module) readFunctions(r *reader) {
	for n := r.u32(); n > 0 && !r.failed; n-- {
		m.typeOf = append(m.typeOf, r.u32())
	}
}

// typed returns type i.
func (m *module) typed(i uint32) (functionType, bool) {
	if int64(i) >= int64(len(m.types)) {
		return functionType{}, false
	}
	return m.types[i], true
}

// function returns the type of function i.
func (m *module) function(i uint32) (functionType, bool) {
	if int64(i) >= int64(len(m.typeOf)) {
		return functionType{}, false
	}
	return m.typed(m.typeOf[i])
}

// code rewrites the code section.
func (m *module) code(r *reader) ([]byte, error) {
	count := r.u32()
	out := bytes.NewBuffer(make([]byte, 0, len(r.b)+len(r.b)/8))
	putU32(out, count)
	f := &flow{module: m}
	for i := range count {
		body := r.take(r.u32())
		t, ok := m.function(uint32(m.imported) + i)
		if r.failed || !ok {
			return nil, fmt.Errorf("%w: code of function %d", ErrFormat, i)
		}
		rewritten, err := f.rewrite(body, t)
		if err != nil {
			return nil, fmt.Errorf("%w: code of function %d", err, i)
		}
		putU32(out, uint32(len(rewritten)))
		out.Write(rewritten)
	}
	return out.Bytes(), nil
}

// rewrite rewrites the body of one function. What is added needs local variables: they are behind the function's parameters
// and locals, one for each kind of result that is made canonical, three for each type that is selected from.
func (f *flow) rewrite(body []byte, t functionType) ([]byte, error) {
	r := &reader{b: body}
	f.reset(t)
	groups := r.u32()
	declared := r.b
	for range groups {
		if f.declare(uint64(r.u32()), r.byte()); r.failed || f.locals() > maxLocals {
			return nil, ErrFormat
		}
	}
	declared = declared[:len(declared)-len(r.b)]
	code := r.b
	if !f.follow(r) {
		return nil, ErrFormat
	}
	f.solve()

	var added []byte // declarations of these variables
	known := map[[2]byte]uint32{}
	scratch := func(valueType byte, n int) uint32 {
		name := [2]byte{valueType, byte(n)}
		at, ok := known[name]
		if !ok {
			at = f.locals() + uint32(len(added)/2)
			added, known[name] = append(added, 1, valueType), at
		}
		return at
	}
	out := bytes.NewBuffer(make([]byte, 0, len(code)+len(code)/8))
	from := 0
	selects := f.selects
	selectsUntil := func(end int) {
		for ; len(selects) > 0 && selects[0].end <= end; selects = selects[1:] {
			out.Write(code[from:selects[0].start])
			from = selects[0].end
			selects[0].put(out, scratch)
		}
	}
	for _, n := range f.nodes[1:] {
		if !n.canonical {
			continue
		}
		selectsUntil(n.end)
		out.Write(code[from:n.end])
		from = n.end
		s := sequences[n.kind]
		if f.module.branching {
			s.branch(out, scratch(s.valueType, 0))
		} else {
			s.put(out, scratch(s.valueType, 0))
		}
	}
	selectsUntil(len(code))
	if len(added) == 0 {
		return body, nil
	}
	out.Write(code[from:])
	whole := bytes.NewBuffer(make([]byte, 0, out.Len()+len(declared)+16))
	putU32(whole, groups+uint32(len(added)/2))
	whole.Write(declared)
	whole.Write(added)
	whole.Write(out.Bytes())
	return whole.Bytes(), nil
}

// kind is what an instruction leaves on the stack that may be a NaN.
type kind uint8

const (
	none kind = iota
	f32
	f64
	f32x4
	f64x2
	kinds
)

// sequence is the code that makes a result of a kind canonical: tee the result to a variable, push the NaN, compare the
// variable with itself, choose. "At least itself" holds for all but NaNs, as "equal" does, and costs x86 one jump, not two.
type sequence struct {
	valueType byte
	nan       []byte
	choose    []byte
}

const (
	opIf       = 0x04
	opElse     = 0x05
	opEnd      = 0x0b
	opLocalGet = 0x20
	opLocalSet = 0x21
	opLocalTee = 0x22
	opSelect   = 0x1b
	opF32Const = 0x43
	opF64Const = 0x44
	opF32Ge    = 0x60
	opF64Ge    = 0x66
	opMisc     = 0xfc
	opVector   = 0xfd
	v128Const  = 0x0c
	f32x4Eq    = 0x41
	f64x2Eq    = 0x47
	bitselect  = 0x52
)

var (
	nan32 = []byte{0, 0, 0xc0, 0x7f}
	nan64 = []byte{0, 0, 0, 0, 0, 0, 0xf8, 0x7f}

	sequences = [kinds]sequence{
		f32:   {0x7d, append([]byte{opF32Const}, nan32...), []byte{opF32Ge, opSelect}},
		f64:   {0x7c, append([]byte{opF64Const}, nan64...), []byte{opF64Ge, opSelect}},
		f32x4: {0x7b, append([]byte{opVector, v128Const}, bytes.Repeat(nan32, 4)...), []byte{opVector, f32x4Eq, opVector, bitselect}},
		f64x2: {0x7b, append([]byte{opVector, v128Const}, bytes.Repeat(nan64, 2)...), []byte{opVector, f64x2Eq, opVector, bitselect}},
	}
)

func (s sequence) put(out *bytes.Buffer, variable uint32) {
	out.WriteByte(opLocalTee)
	putU32(out, variable)
	out.Write(s.nan)
	local(out, variable)
	local(out, variable)
	out.Write(s.choose)
}

// putU32 writes an unsigned LEB128 number.
func putU32(out *bytes.Buffer, v uint32) {
	for ; v >= 0x80; v >>= 7 {
		out.WriteByte(byte(v) | 0x80)
	}
	out.WriteByte(byte(v))
}
