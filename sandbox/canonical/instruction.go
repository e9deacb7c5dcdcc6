package canonical

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

// instruction reads one instruction with its immediates, and returns what kind of NaN it can make. The source is the
// core specification 2.0, section 5.4.
func (r *reader) instruction() kind {
	op := r.byte()
	switch {
	case op >= 0x02 && op <= 0x04, // block, loop, if
		op == 0x0c, op == 0x0d, op == 0x10, // br, br_if, call
		op >= 0x20 && op <= 0x26, // variables, tables
		op >= 0x3f && op <= 0x42, // memory size and grow, integer constants
		op == 0xd0, op == 0xd2:   // ref.null, ref.func
		r.skip(1)
	case op == 0x0e: // br_table
		for n := r.u32(); n > 0 && !r.failed; n-- {
			r.skip(1)
		}
		r.skip(1)
	case op == 0x11, op >= 0x28 && op <= 0x3e: // call_indirect, loads and stores
		r.skip(2)
	case op == 0x1c: // select with types
		r.take(r.u32())
	case op == opF32Const:
		r.take(4)
	case op == opF64Const:
		r.take(8)
	case op == opMisc:
		r.misc()
	case op == opVector:
		return r.vector()
	case op >= 0x8d && op <= 0x97, op == 0xb6: // f32: ceil to max without copysign; f32.demote_f64
		return f32
	case op >= 0x9b && op <= 0xa5, op == 0xbb: // f64: the same; f64.promote_f32
		return f64
	case op == 0x00, op == 0x01, op == 0x05, op == 0x0b, op == 0x0f, op == 0x1a, op == 0x1b, op >= 0x45 && op <= 0xc4, op == 0xd1:
	default:
		r.failed = true
	}
	return none
}

// misc reads what follows the prefix 0xfc.
func (r *reader) misc() {
	switch op := r.u32(); {
	case op <= 7: // saturating truncations
	case op == 9, op == 11, op == 13, op >= 15 && op <= 17: // data.drop, memory.fill, elem.drop, table.grow, size and fill
		r.skip(1)
	case op == 8, op == 10, op == 12, op == 14: // memory.init and copy, table.init and copy
		r.skip(2)
	default:
		r.failed = true
	}
}

// vector reads what follows the prefix 0xfd.
func (r *reader) vector() kind {
	op := r.u32()
	switch {
	case op <= 0x0b, op == 0x5c, op == 0x5d: // loads and stores
		r.skip(2)
	case op == v128Const, op == 0x0d: // constant, shuffle
		r.take(16)
	case op >= 0x15 && op <= 0x22: // lanes
		r.byte()
	case op >= 0x54 && op <= 0x5b: // loads and stores of lanes
		r.skip(2)
		r.byte()
	case op == 0x5e, op >= 0x67 && op <= 0x6a, op >= 0xe3 && op <= 0xe9:
		return f32x4 // demote; ceil, floor, trunc, nearest; sqrt to max
	case op == 0x5f, op == 0x74, op == 0x75, op == 0x7a, op == 0x94, op >= 0xef && op <= 0xf5:
		return f64x2 // promote; ceil, floor, trunc, nearest; sqrt to max
	case op > 0xff:
		r.failed = true
	}
	return none
}
