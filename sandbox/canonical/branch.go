package canonical

import "bytes"

// wazero's compiler for amd64 gives a wrong value for some selects between floats or vectors, where registers are scarce
// (https://github.com/wazero/wazero/issues/2534; its releases up to v1.12.0). Branching puts an "if" in the place of each,
// and of those that make NaNs canonical; selects between integers and references are not concerned.

// selection is a select between floats or vectors, at code[start:end].
type selection struct {
	start, end int
	valueType  byte
}

// seesType tells whether values of a type are in the registers that selection is about.
func seesType(t byte) bool { return t == typeF32 || t == typeF64 || t == typeV128 }

// put writes an "if" for a select whose operands are on the stack.
func (s selection) put(out *bytes.Buffer, scratch func(valueType byte, n int) uint32) {
	x, y, condition := scratch(s.valueType, 1), scratch(s.valueType, 2), scratch(typeI32, 1)
	for _, local := range []uint32{condition, y, x} {
		out.WriteByte(opLocalSet)
		putU32(out, local)
	}
	local(out, condition)
	out.Write([]byte{opIf, s.valueType})
	local(out, x)
	out.WriteByte(opElse)
	local(out, y)
	out.WriteByte(opEnd)
}

// branch is put with an "if" for the select of a scalar; vectors have none.
func (s sequence) branch(out *bytes.Buffer, variable uint32) {
	if s.valueType == typeV128 {
		s.put(out, variable)
		return
	}
	out.WriteByte(opLocalTee)
	putU32(out, variable)
	local(out, variable)
	out.Write(s.choose[:1])
	out.Write([]byte{opIf, s.valueType})
	local(out, variable)
	out.WriteByte(opElse)
	out.Write(s.nan)
	out.WriteByte(opEnd)
}

func local(out *bytes.Buffer, i uint32) {
	out.WriteByte(opLocalGet)
	putU32(out, i)
}

// readGlobals reads the types of the module's own globals.
func (m *module) readGlobals(r *reader) {
	for n := r.u32(); n > 0 && !r.failed; n-- {
		m.globals = append(m.globals, r.byte())
		r.byte() // mutable or not
		for !r.failed && r.instruction().act != ends {
		}
	}
}

// leaves is the type of the float or vector that an instruction between i32.eqz and i64.extend32_s leaves; 0: an integer.
func leaves(op byte) byte {
	switch {
	case op >= 0x8b && op <= 0x98, op >= 0xb2 && op <= 0xb6, op == 0xbe:
		return typeF32
	case op >= 0x99 && op <= 0xa6, op >= 0xb7 && op <= 0xbb, op == 0xbf:
		return typeF64
	}
	return 0
}

// vectorLeaves is leaves for what follows the prefix 0xfd.
func vectorLeaves(op uint32) byte {
	switch op {
	case 0x1f: // f32x4.extract_lane
		return typeF32
	case 0x21: // f64x2.extract_lane
		return typeF64
	case 0x15, 0x16, 0x18, 0x19, 0x1b, 0x1d, // extract_lane of integers
		0x53, 0x63, 0x83, 0xa3, 0xc3, // any_true, all_true
		0x64, 0x84, 0xa4, 0xc4: // bitmask
		return 0
	}
	return typeV128
}
