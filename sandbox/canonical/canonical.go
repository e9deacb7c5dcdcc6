// Package canonical rewrites a WebAssembly module so that arithmetic yields canonical NaNs.
//
// WebAssembly leaves the sign and payload of a NaN that an operation makes to the machine: x86 and ARM differ, and a
// program that prints one shows it ("-nan"). wasmtime's compiler can make them canonical and wazero's cannot, so modules
// for wazero are rewritten: behind each operation that can make a NaN comes "if the result is not equal to itself, take
// the canonical NaN". The operations are those of Cranelift's pass of the same purpose, so that both engines agree.
//
// Modules are WebAssembly 2.0. The package does not validate: what it cannot read is an error, what it can read and is
// not valid stays so, for the engine to refuse.
package canonical

import (
	"bytes"
	"errors"
	"fmt"
)

// Sections and forms of the binary format.
const (
	sectionType     = 1
	sectionFunction = 3
	sectionCode     = 10
	formFunction    = 0x60
	headerBytes     = 8
)

// ErrFormat is in the error for a module that cannot be read.
var ErrFormat = errors.New("canonical: not a module of WebAssembly 2.0")

// NaN returns the module with canonical NaNs. The result shares no memory with wasm.
func NaN(wasm []byte) ([]byte, error) {
	if len(wasm) < headerBytes {
		return nil, ErrFormat
	}
	out := bytes.NewBuffer(make([]byte, 0, len(wasm)+len(wasm)/8))
	out.Write(wasm[:headerBytes])
	r := &reader{b: wasm[headerBytes:]}
	var m module
	for len(r.b) > 0 {
		id := r.byte()
		section := &reader{b: r.take(r.u32())}
		if r.failed {
			return nil, ErrFormat
		}
		content := section.b
		switch id {
		case sectionType:
			m.types(section)
		case sectionFunction:
			m.functions(section)
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

// module is what the code section is read with: how many parameters each function has.
type module struct {
	paramsOfType []uint32
	typeOf       []uint32
}

func (m *module) types(r *reader) {
	for n := r.u32(); n > 0 && !r.failed; n-- {
		if r.byte() != formFunction {
			r.failed = true
		}
		params := r.u32()
		r.take(params)
		r.take(r.u32())
		m.paramsOfType = append(m.paramsOfType, params)
	}
}

func (m *module) functions(r *reader) {
	for n := r.u32(); n > 0 && !r.failed; n-- {
		m.typeOf = append(m.typeOf, r.u32())
	}
}

// code rewrites the code section.
func (m *module) code(r *reader) ([]byte, error) {
	count := r.u32()
	out := bytes.NewBuffer(make([]byte, 0, len(r.b)+len(r.b)/8))
	putU32(out, count)
	for i := range count {
		body := r.take(r.u32())
		if r.failed || int(i) >= len(m.typeOf) || int(m.typeOf[i]) >= len(m.paramsOfType) {
			return nil, fmt.Errorf("%w: code of function %d", ErrFormat, i)
		}
		rewritten, err := rewrite(body, m.paramsOfType[m.typeOf[i]])
		if err != nil {
			return nil, fmt.Errorf("%w: code of function %d", err, i)
		}
		putU32(out, uint32(len(rewritten)))
		out.Write(rewritten)
	}
	return out.Bytes(), nil
}

// rewrite rewrites the body of one function. Each kind of result that it meets gets a local variable of its own, behind
// the function's parameters and locals.
func rewrite(body []byte, params uint32) ([]byte, error) {
	r := &reader{b: body}
	groups := r.u32()
	declared := r.b
	locals := uint64(params)
	for range groups {
		locals += uint64(r.u32())
		r.byte()
		if r.failed {
			return nil, ErrFormat
		}
	}
	declared = declared[:len(declared)-len(r.b)]

	var local [kinds]uint32 // index of a kind's variable, plus one
	var added []byte        // declarations of these variables
	code := bytes.NewBuffer(make([]byte, 0, len(r.b)+len(r.b)/4))
	from := r.b
	flush := func() {
		code.Write(from[:len(from)-len(r.b)])
		from = r.b
	}
	for len(r.b) > 0 {
		k := r.instruction()
		if r.failed {
			return nil, ErrFormat
		}
		if k == none {
			continue
		}
		flush()
		if local[k] == 0 {
			added = append(added, 1, sequences[k].valueType)
			local[k] = uint32(locals) + uint32(len(added)/2)
		}
		sequences[k].put(code, local[k]-1)
	}
	if len(added) == 0 {
		return body, nil
	}
	if locals > 1<<31 {
		return nil, ErrFormat
	}
	flush()
	out := bytes.NewBuffer(make([]byte, 0, code.Len()+len(declared)+16))
	putU32(out, groups+uint32(len(added)/2))
	out.Write(declared)
	out.Write(added)
	out.Write(code.Bytes())
	return out.Bytes(), nil
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
// variable with itself, choose.
type sequence struct {
	valueType byte
	nan       []byte
	choose    []byte
}

const (
	opLocalGet = 0x20
	opLocalTee = 0x22
	opSelect   = 0x1b
	opF32Const = 0x43
	opF64Const = 0x44
	opF32Eq    = 0x5b
	opF64Eq    = 0x61
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
		f32:   {0x7d, append([]byte{opF32Const}, nan32...), []byte{opF32Eq, opSelect}},
		f64:   {0x7c, append([]byte{opF64Const}, nan64...), []byte{opF64Eq, opSelect}},
		f32x4: {0x7b, append([]byte{opVector, v128Const}, bytes.Repeat(nan32, 4)...), []byte{opVector, f32x4Eq, opVector, bitselect}},
		f64x2: {0x7b, append([]byte{opVector, v128Const}, bytes.Repeat(nan64, 2)...), []byte{opVector, f64x2Eq, opVector, bitselect}},
	}
)

func (s sequence) put(out *bytes.Buffer, local uint32) {
	out.WriteByte(opLocalTee)
	putU32(out, local)
	out.Write(s.nan)
	for range 2 {
		out.WriteByte(opLocalGet)
		putU32(out, local)
	}
	out.Write(s.choose)
}

// putU32 writes an unsigned LEB128 number.
func putU32(out *bytes.Buffer, v uint32) {
	for ; v >= 0x80; v >>= 7 {
		out.WriteByte(byte(v) | 0x80)
	}
	out.WriteByte(byte(v))
}
