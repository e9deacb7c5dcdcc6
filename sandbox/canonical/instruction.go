package canonical

import (
	"encoding/binary"
	"math"
)

// reader reads the encodings of the binary format. Once it has failed it reads zeros.
type reader struct {
	b      []byte
	failed bool
}

func (r *reader) take(n uint32) []byte {
	if r.failed || uint64(n) > uint64(len(r.b)) {
		r.failed = true
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

// u32 reads an unsigned LEB128 number.
func (r *reader) u32() uint32 {
	v := uint64(0)
	for shift := 0; ; shift += 7 {
		b := r.byte()
		v |= uint64(b&0x7f) << shift
		if b&0x80 == 0 {
			break
		}
		if shift >= 28 {
			r.failed = true
			return 0
		}
	}
	if v > 1<<32-1 {
		r.failed = true
		return 0
	}
	return uint32(v)
}

// skip reads n LEB128 numbers, signed or not.
func (r *reader) skip(n int) {
	for range n {
		for i := 0; r.byte()&0x80 != 0; i++ {
			if i >= 9 {
				r.failed = true
			}
		}
	}
}

// s33 reads a signed LEB128 number of at most 33 bits, the type of a block.
func (r *reader) s33() int64 {
	v := int64(0)
	for shift := 0; shift < 35; shift += 7 {
		b := r.byte()
		v |= int64(b&0x7f) << shift
		if b&0x80 == 0 {
			return v << (57 - shift) >> (57 - shift)
		}
	}
	r.failed = true
	return 0
}

// act is what an instruction does with values, as far as it matters here.
type act uint8

const (
	plain    act = iota // takes values and sees their bits, leaves values whose bits are to be kept
	computes            // takes values of kind in and does not see which NaN they are; leaves arithmetic of kind out, or no NaN
	turns               // changes the sign of a value of kind in
	drops
	chooses // select
	getsLocal
	setsLocal
	teesLocal
	opens // block
	loops
	opensIf
	turnsElse
	ends
	branches
	branchesIf
	branchesTable
	returns
	stops // unreachable
	calls
	callsIndirect
)

// instruction is one, decoded.
type instruction struct {
	act          act
	takes, gives int    // values, of plain and computes
	in, out      kind   // of computes and turns
	n            uint32 // local, global, label, function or type
	global       bool   // it reads global n
	leaves       byte   // type of a float or vector that it leaves; 0: of another, or it depends
	block        int64  // type of a block
}

func puts(takes, gives int) instruction { return instruction{takes: takes, gives: gives} }

func arithmetic(takes int, in, out kind) instruction {
	return instruction{act: computes, takes: takes, gives: 1, in: in, out: out}
}

// instruction reads one instruction with its immediates. The source is the core specification 2.0, section 5.4.
func (r *reader) instruction() instruction {
	op := r.byte()
	switch {
	case op < 0x20:
		return r.control(op)
	case op < 0x45:
		return r.access(op)
	case op <= 0xc4:
		i := numeric(op)
		i.leaves = leaves(op)
		return i
	}
	switch op {
	case 0xd0: // ref.null
		r.skip(1)
		return puts(0, 1)
	case 0xd1: // ref.is_null
		return puts(1, 1)
	case 0xd2: // ref.func
		r.skip(1)
		return puts(0, 1)
	case opMisc:
		return r.misc()
	case opVector:
		return r.vector()
	}
	r.failed = true
	return instruction{}
}

func (r *reader) control(op byte) instruction {
	switch op {
	case 0x00:
		return instruction{act: stops}
	case 0x01: // nop
		return puts(0, 0)
	case 0x02:
		return instruction{act: opens, block: r.s33()}
	case 0x03:
		return instruction{act: loops, block: r.s33()}
	case 0x04:
		return instruction{act: opensIf, block: r.s33()}
	case 0x05:
		return instruction{act: turnsElse}
	case 0x0b:
		return instruction{act: ends}
	case 0x0c:
		return instruction{act: branches, n: r.u32()}
	case 0x0d:
		return instruction{act: branchesIf, n: r.u32()}
	case 0x0e:
		for n := r.u32(); n > 0 && !r.failed; n-- {
			r.skip(1)
		}
		return instruction{act: branchesTable, n: r.u32()} // all its labels take as many values
	case 0x0f:
		return instruction{act: returns}
	case 0x10:
		return instruction{act: calls, n: r.u32()}
	case 0x11:
		i := instruction{act: callsIndirect, n: r.u32()}
		r.skip(1)
		return i
	case 0x1a:
		return instruction{act: drops}
	case opSelect:
		return instruction{act: chooses}
	case 0x1c: // select with types, of which there is one
		i := instruction{act: chooses}
		if t := r.take(r.u32()); len(t) > 0 && seesType(t[0]) {
			i.leaves = t[0]
		}
		return i
	}
	r.failed = true
	return instruction{}
}

// access reads the rest of an instruction on variables, tables and memory, or of a constant.
func (r *reader) access(op byte) instruction {
	switch {
	case op == opLocalGet:
		return instruction{act: getsLocal, n: r.u32()}
	case op == 0x21:
		return instruction{act: setsLocal, n: r.u32()}
	case op == opLocalTee:
		return instruction{act: teesLocal, n: r.u32()}
	case op == 0x23: // global.get
		return instruction{gives: 1, n: r.u32(), global: true}
	case op == 0x3f, op == 0x41, op == 0x42: // memory.size, i32.const, i64.const
		r.skip(1)
		return puts(0, 1)
	case op == 0x24: // global.set
		r.skip(1)
		return puts(1, 0)
	case op == 0x25, op == 0x40: // table.get, memory.grow
		r.skip(1)
		return puts(1, 1)
	case op == 0x26: // table.set
		r.skip(1)
		return puts(2, 0)
	case op >= 0x28 && op <= 0x35: // loads
		r.skip(2)
		i := puts(1, 1)
		switch op {
		case 0x2a:
			i.leaves = typeF32
		case 0x2b:
			i.leaves = typeF64
		}
		return i
	case op >= 0x36 && op <= 0x3e: // stores
		r.skip(2)
		return puts(2, 0)
	case op == opF32Const:
		b := r.take(4)
		return constant(typeF32, b != nil && math.IsNaN(float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))))
	case op == opF64Const:
		b := r.take(8)
		return constant(typeF64, b != nil && math.IsNaN(math.Float64frombits(binary.LittleEndian.Uint64(b))))
	}
	r.failed = true
	return instruction{}
}

// constant is a number, or a NaN whose bits are to be kept.
func constant(t byte, nan bool) instruction {
	i := arithmetic(0, none, none)
	if nan {
		i = puts(0, 1)
	}
	i.leaves = t
	return i
}

// numeric is the instructions from i32.eqz to i64.extend32_s.
func numeric(op byte) instruction {
	switch {
	case op >= 0x5b && op <= 0x60: // comparisons
		return arithmetic(2, f32, none)
	case op >= 0x61 && op <= 0x66:
		return arithmetic(2, f64, none)
	case op == 0x8b, op == 0x8c: // abs, neg
		return instruction{act: turns, in: f32}
	case op == 0x99, op == 0x9a:
		return instruction{act: turns, in: f64}
	case op >= 0x8d && op <= 0x91: // ceil, floor, trunc, nearest, sqrt
		return arithmetic(1, f32, f32)
	case op >= 0x9b && op <= 0x9f:
		return arithmetic(1, f64, f64)
	case op >= 0x92 && op <= 0x97: // add, sub, mul, div, min, max
		return arithmetic(2, f32, f32)
	case op >= 0xa0 && op <= 0xa5:
		return arithmetic(2, f64, f64)
	case op == 0xa8, op == 0xa9, op == 0xae, op == 0xaf: // trunc to integers
		return arithmetic(1, f32, none)
	case op == 0xaa, op == 0xab, op == 0xb0, op == 0xb1:
		return arithmetic(1, f64, none)
	case op >= 0xb2 && op <= 0xb5, op >= 0xb7 && op <= 0xba: // convert from integers
		return arithmetic(1, none, none)
	case op == 0xb6: // f32.demote_f64
		return arithmetic(1, f64, f32)
	case op == 0xbb: // f64.promote_f32
		return arithmetic(1, f32, f64)
	case op == 0x45, op == 0x50, op >= 0x67 && op <= 0x69, op >= 0x79 && op <= 0x7b, op >= 0xa7:
		return puts(1, 1) // eqz, clz, ctz, popcnt; wrap, extend, reinterpret
	}
	return puts(2, 1)
}

// misc reads what follows the prefix 0xfc.
func (r *reader) misc() instruction {
	switch op := r.u32(); op {
	case 0, 1, 4, 5: // saturating truncations
		return arithmetic(1, f32, none)
	case 2, 3, 6, 7:
		return arithmetic(1, f64, none)
	case 9, 13: // data.drop, elem.drop
		r.skip(1)
		return puts(0, 0)
	case 11, 17: // memory.fill, table.fill
		r.skip(1)
		return puts(3, 0)
	case 15: // table.grow
		r.skip(1)
		return puts(2, 1)
	case 16: // table.size
		r.skip(1)
		return puts(0, 1)
	case 8, 10, 12, 14: // memory.init and copy, table.init and copy
		r.skip(2)
		return puts(3, 0)
	}
	r.failed = true
	return instruction{}
}

// vector reads what follows the prefix 0xfd.
func (r *reader) vector() instruction {
	op := r.u32()
	i := r.immediates(op)
	if i.gives > 0 {
		i.leaves = vectorLeaves(op)
	}
	return i
}

// immediates reads the rest of a vector instruction.
func (r *reader) immediates(op uint32) instruction {
	switch {
	case op <= 0x0a, op == 0x5c, op == 0x5d: // loads
		r.skip(2)
		return puts(1, 1)
	case op == 0x0b: // store
		r.skip(2)
		return puts(2, 0)
	case op == v128Const:
		r.take(16)
		return puts(0, 1)
	case op == 0x0d: // shuffle
		r.take(16)
		return puts(2, 1)
	case op >= 0x15 && op <= 0x22: // lanes
		r.byte()
		switch op {
		case 0x17, 0x1a, 0x1c, 0x1e, 0x20, 0x22: // replace
			return puts(2, 1)
		}
		return puts(1, 1)
	case op >= 0x54 && op <= 0x57: // loads of lanes
		r.skip(2)
		r.byte()
		return puts(2, 1)
	case op >= 0x58 && op <= 0x5b: // stores of lanes
		r.skip(2)
		r.byte()
		return puts(2, 0)
	case op > 0xff:
		r.failed = true
		return instruction{}
	}
	return lanewise(op)
}

// lanewise is the vector instructions without immediates.
func lanewise(op uint32) instruction {
	switch {
	case op == 0x5e: // demote
		return arithmetic(1, f64x2, f32x4)
	case op == 0x5f: // promote
		return arithmetic(1, f32x4, f64x2)
	case op >= 0x67 && op <= 0x6a, op == 0xe3: // ceil, floor, trunc, nearest, sqrt
		return arithmetic(1, f32x4, f32x4)
	case op == 0x74, op == 0x75, op == 0x7a, op == 0x94, op == 0xef:
		return arithmetic(1, f64x2, f64x2)
	case op >= 0xe4 && op <= 0xe9: // add, sub, mul, div, min, max
		return arithmetic(2, f32x4, f32x4)
	case op >= 0xf0 && op <= 0xf5:
		return arithmetic(2, f64x2, f64x2)
	case op == 0x52: // bitselect
		return puts(3, 1)
	case op >= 0x0f && op <= 0x14, // splat
		op == 0x4d, op == 0x53, op >= 0x60 && op <= 0x64, // not, any_true; i8x16: abs, neg, popcnt, all_true, bitmask
		op >= 0x7c && op <= 0x81, op == 0x83, op == 0x84, op >= 0x87 && op <= 0x8a, // extadd; i16x8, and extend
		op == 0xa0, op == 0xa1, op == 0xa3, op == 0xa4, op >= 0xa7 && op <= 0xaa, // i32x4
		op == 0xc0, op == 0xc1, op == 0xc3, op == 0xc4, op >= 0xc7 && op <= 0xca, // i64x2
		op == 0xe0, op == 0xe1, op == 0xec, op == 0xed, op >= 0xf8: // abs, neg of floats; conversions
		return puts(1, 1)
	}
	return puts(2, 1)
}
