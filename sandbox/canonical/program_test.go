package canonical

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
)

// A generated program has a memory and two globals, of f64 and f32. "run" loads the arguments of f from the memory, calls
// it, and stores its result and the globals: all that is visible is in the first visibleBytes of the memory.
const (
	inputBytes   = 256
	resultsAt    = 1024
	visibleBytes = 2048

	typeI64, typeVoid = 0x7e, 0x40
)

var parameters = []byte{typeF64, typeF32}

// generator writes the body of a function, at random.
type generator struct {
	*rand.Rand
	bytes.Buffer
	locals []byte // types; the last is the fuel, which each jump back to a loop burns
	labels []byte // of each open block: typeVoid if a jump to it takes no value, 0 if none goes there, else the type of the value
	result []byte // types
	callee bool   // there is a function 0 to call
}

func (g *generator) op(b ...byte) { g.Write(b) }

func (g *generator) u32(op byte, n int) {
	g.WriteByte(op)
	putU32(&g.Buffer, uint32(n))
}

func (g *generator) i32(n int) { g.op(0x41, byte(n&0x3f)) }

// local is one of a type.
func (g *generator) local(t byte) int {
	for {
		if i := g.IntN(len(g.locals) - 1); g.locals[i] == t {
			return i
		}
	}
}

func (g *generator) access(op byte, t byte, limit int) {
	putMem := func() { g.op(0); putU32(&g.Buffer, uint32(g.IntN(limit/16)*16)) }
	if t == typeV128 {
		g.op(opVector, op)
	} else {
		g.op(op)
	}
	putMem()
}

func (g *generator) load(t byte) {
	g.i32(0)
	g.access(map[byte]byte{typeI32: 0x28, typeI64: 0x29, typeF32: 0x2a, typeF64: 0x2b, typeV128: 0}[t], t, inputBytes)
}

var numbers = []uint64{0, 1 << 63, 0x3ff0000000000000, 0xc000000000000000, 0x7ff0000000000000, 0xfff0000000000000, 0x7fe0000000000000,
	0x7ff8000000000000, 0xfff8000000000000, 0x7ff4dead0000beef, 0xfff000000000cafe, 0xffffffffffffffff, 1, 0x3fb999999999999a}

var numbers32 = []uint32{0, 1 << 31, 0x3f800000, 0xc0000000, 0x7f800000, 0xff800000, 0x7f000000, 0x7fc00000, 0xffc00000, 0x7fa12345,
	0xff800001, 0xffffffff, 1, 0x3dcccccd}

// value writes code that leaves one value.
func (g *generator) value(t byte, depth int) {
	if depth <= 0 || g.IntN(8) == 0 {
		switch c := g.IntN(4); {
		case c == 0:
			g.load(t)
		case c == 1:
			g.constant(t)
		case t == typeI32 || t == typeI64:
			g.constant(t)
		default:
			g.u32(opLocalGet, g.local(t))
		}
		return
	}
	depth--
	if g.IntN(4) == 0 {
		g.structured(t, depth)
		return
	}
	switch t {
	case typeI32:
		g.integer(depth)
	case typeI64:
		g.value(typeF64, depth)
		g.op([][]byte{{0xbd}, {0xbd}, {0xfc, 6}}[g.IntN(3)]...) // reinterpret, trunc_sat
	case typeV128:
		g.vector(depth)
	default:
		g.float(t, depth)
	}
}

func (g *generator) constant(t byte) {
	switch t {
	case typeI32:
		g.i32(g.IntN(4))
	case typeI64:
		g.op(0x42, byte(g.IntN(64)))
	case typeF32:
		g.op(opF32Const)
		_ = binary.Write(g, binary.LittleEndian, numbers32[g.IntN(len(numbers32))])
	case typeF64:
		g.op(opF64Const)
		_ = binary.Write(g, binary.LittleEndian, numbers[g.IntN(len(numbers))])
	case typeV128:
		g.op(opVector, v128Const)
		for range 2 {
			_ = binary.Write(g, binary.LittleEndian, numbers[g.IntN(len(numbers))])
		}
	}
}

// structured is a value by way of what all types have.
func (g *generator) structured(t byte, depth int) {
	number := t == typeI32 || t == typeI64
	switch c := g.IntN(8); {
	case c <= 1:
		g.value(t, depth)
		g.value(t, depth)
		g.value(typeI32, depth)
		if c == 0 && t != typeV128 {
			g.op(opSelect)
		} else {
			g.op(0x1c, 1, t)
		}
	case c == 2:
		g.value(typeI32, depth)
		g.op(0x04, t)
		g.labels = append(g.labels, t)
		g.value(t, depth)
		g.op(0x05)
		g.value(t, depth)
		g.close()
	case c == 3: // a block that is left early or not
		g.op(0x02, t)
		g.labels = append(g.labels, t)
		g.value(t, depth)
		g.value(typeI32, depth)
		g.op(0x0d, 0)
		if g.IntN(2) == 0 {
			g.op(0x1a)
			g.value(t, depth)
		}
		g.statement(depth)
		g.close()
	case c == 4 && !number:
		g.value(t, depth)
		g.u32(opLocalTee, g.local(t))
	case c == 5 && (t == typeF32 || t == typeF64):
		g.u32(0x23, int(t-typeF64))
	case c == 6 && g.callee && (t == typeF32 || t == typeF64):
		g.value(typeF64, depth)
		g.value(typeF32, depth)
		g.op(0x10, 0) // leaves f64, f32
		if t == typeF64 {
			g.op(0x1a)
		} else {
			g.u32(0x21, g.local(typeF32))
			g.op(0x1a)
			g.u32(opLocalGet, g.local(typeF32))
		}
	case c == 7 && (t == typeF32 || t == typeF64): // a block that takes and leaves two values: type 1
		g.value(typeF64, depth)
		g.value(typeF32, depth)
		g.op([]byte{0x02, 0x03}[g.IntN(2)], 1)
		g.labels = append(g.labels, 0)
		g.value(typeF32, depth)
		g.op(0x92)
		g.close()
		if t == typeF64 {
			g.op(0x1a)
		} else {
			g.u32(0x21, g.local(typeF32))
			g.op(0x1a)
			g.u32(opLocalGet, g.local(typeF32))
		}
	default:
		g.value(t, depth)
	}
}

func (g *generator) close() {
	g.op(0x0b)
	g.labels = g.labels[:len(g.labels)-1]
}

func (g *generator) integer(depth int) {
	switch g.IntN(4) {
	case 0:
		g.value(typeF32, depth)
		g.op(0xbc) // reinterpret
		g.i32(1)
		g.op(0x71)
	case 1:
		g.value(typeF32, depth)
		g.value(typeF32, depth)
		g.op(0x5b + byte(g.IntN(6)))
	case 2:
		g.value(typeF64, depth)
		g.value(typeF64, depth)
		g.op(0x61 + byte(g.IntN(6)))
	default:
		g.value(typeV128, depth)
		g.op(opVector, 0x53) // any_true
	}
}

func (g *generator) float(t byte, depth int) {
	shift := byte(0)
	if t == typeF64 {
		shift = 14
	}
	switch c := g.IntN(12); {
	case c <= 5: // add to max and copysign
		g.value(t, depth)
		g.value(t, depth)
		g.op(0x92 + shift + byte(g.IntN(7)))
	case c == 6: // ceil to sqrt
		g.value(t, depth)
		g.op(0x8d + shift + byte(g.IntN(5)))
	case c <= 8: // abs, neg
		g.value(t, depth)
		g.op(0x8b + shift + byte(g.IntN(2)))
	case c == 9 && t == typeF32:
		g.value(typeF64, depth)
		g.op(0xb6)
	case c == 9:
		g.value(typeF32, depth)
		g.op(0xbb)
	case c == 10 && t == typeF32:
		g.value(typeI32, depth)
		g.op([]byte{0xb2, 0xbe}[g.IntN(2)])
	case c == 10:
		g.value(typeI64, depth)
		g.op([]byte{0xb9, 0xbf}[g.IntN(2)])
	case t == typeF32:
		g.value(typeV128, depth)
		g.op(opVector, 0x1f, byte(g.IntN(4)))
	default:
		g.value(typeV128, depth)
		g.op(opVector, 0x21, byte(g.IntN(2)))
	}
}

func (g *generator) lane(op int) {
	g.WriteByte(opVector)
	putU32(&g.Buffer, uint32(op))
}

func (g *generator) vector(depth int) {
	switch g.IntN(8) {
	case 0, 1:
		g.value(typeV128, depth)
		g.value(typeV128, depth)
		g.lane([]int{0xe4, 0xf0}[g.IntN(2)] + g.IntN(8)) // add to pmax
	case 2:
		g.value(typeV128, depth)
		g.lane([]int{0xe3, 0xef, 0x67, 0x68, 0x69, 0x6a, 0x74, 0x75, 0x7a, 0x94, 0x5e, 0x5f, 0xe0, 0xe1, 0xec, 0xed, 0x4d}[g.IntN(17)])
	case 3:
		g.value(typeF64, depth)
		g.lane(0x14)
	case 4:
		g.value(typeF32, depth)
		g.lane(0x13)
	case 5:
		g.value(typeV128, depth)
		g.value(typeV128, depth)
		g.lane([]int{0x41, 0x47, 0x4e, 0x50, 0x51, 0xae}[g.IntN(6)])
	case 6:
		g.value(typeV128, depth)
		g.value(typeF64, depth)
		g.lane(0x22)
		g.op(byte(g.IntN(2)))
	default:
		for range 3 {
			g.value(typeV128, depth)
		}
		g.lane(0x52)
	}
}

// statement writes code that leaves nothing.
func (g *generator) statement(depth int) {
	if depth <= 0 {
		return
	}
	depth--
	t := []byte{typeF32, typeF64, typeF64, typeV128}[g.IntN(4)]
	switch g.IntN(9) {
	case 0, 1, 2:
		g.value(t, g.IntN(depth+2))
		g.u32(0x21, g.local(t))
	case 3:
		g.i32(0)
		g.value(t, g.IntN(depth+1))
		g.access(map[byte]byte{typeF32: 0x38, typeF64: 0x39, typeV128: 0x0b}[t], t, resultsAt-16)
	case 4:
		g.value(typeF64, depth)
		g.u32(0x24, 0)
	case 5:
		g.value(typeI32, depth)
		g.op(0x04, typeVoid)
		g.labels = append(g.labels, typeVoid)
		g.statements(depth)
		if g.IntN(2) == 0 {
			g.op(0x05)
			g.statements(depth)
		}
		g.close()
	case 6:
		g.op(0x03, typeVoid)
		g.labels = append(g.labels, 0)
		g.statements(depth)
		fuel := len(g.locals) - 1
		g.u32(opLocalGet, fuel)
		g.i32(1)
		g.op(0x6b)
		g.u32(opLocalTee, fuel)
		g.i32(0)
		g.op(0x4a, 0x0d, 0)
		g.close()
	case 7:
		g.op(0x02, typeVoid)
		g.labels = append(g.labels, typeVoid)
		g.statements(depth)
		g.value(typeI32, depth)
		g.op(0x0d, 0)
		g.statements(depth)
		g.close()
	default:
		g.jump(depth)
	}
}

func (g *generator) statements(depth int) {
	for range 1 + g.IntN(5) {
		g.statement(depth)
	}
}

// jump leaves a block or the function; what follows it cannot be reached.
func (g *generator) jump(depth int) {
	if len(g.labels) == 0 {
		return
	}
	to := g.IntN(len(g.labels))
	switch t := g.labels[len(g.labels)-1-to]; t {
	case 0: // a loop is not jumped to, it might never end; the function is left now and then
		if g.IntN(8) == 0 {
			for _, t := range g.result {
				g.value(t, depth)
			}
			g.op(0x0f)
		}
		return
	case typeVoid:
	default:
		g.value(t, depth)
	}
	if g.IntN(2) == 0 {
		g.u32(0x0c, to)
		return
	}
	g.value(typeI32, depth)
	g.op(0x0e, 1, byte(to), byte(to))
}

// function is the body of one with these parameters and results.
func function(r *rand.Rand, params, results []byte, callee bool) []byte {
	declared := []byte{typeF32, typeF64, typeF64, typeV128, typeI32}
	g := &generator{Rand: r, locals: append(bytes.Clone(params), declared...), result: results, callee: callee}
	g.op(byte(len(declared)))
	for _, t := range declared {
		g.op(1, t)
	}
	g.i32(12)
	g.u32(0x21, len(g.locals)-1)
	for range 2 + r.IntN(6) {
		g.statement(2 + r.IntN(3))
	}
	for _, t := range results {
		g.value(t, 3)
	}
	g.op(0x0b)
	return g.Bytes()
}

// program is a module: function 0 takes and leaves f64, f32, function 1 is f, function 2 is run.
func program(r *rand.Rand) []byte {
	pair := []byte{typeF64, typeF32}
	var run generator
	run.op(0)
	run.i32(0)
	for i, t := range parameters {
		run.i32(0)
		run.op(map[byte]byte{typeF32: 0x2a, typeF64: 0x2b}[t], 0, byte(16*i))
	}
	run.op(0x10, 1)
	store := func(op byte, at int) { run.op(op, 0); putU32(&run.Buffer, uint32(at)) }
	store(0x39, resultsAt)
	run.i32(0)
	run.op(0x23, 0)
	store(0x39, resultsAt+16)
	run.i32(0)
	run.op(0x23, 1)
	store(0x38, resultsAt+32)
	run.op(0x0b)

	m := bytes.NewBuffer([]byte("\x00asm\x01\x00\x00\x00"))
	section := func(id byte, content ...byte) {
		m.WriteByte(id)
		putU32(m, uint32(len(content)))
		m.Write(content)
	}
	types := []byte{3, 0x60, 0, 0, 0x60, 2, typeF64, typeF32, 2, typeF64, typeF32, 0x60, byte(len(parameters))}
	section(sectionType, append(append(types, parameters...), 1, typeF64)...)
	section(sectionFunction, 3, 1, 2, 0)
	section(5, 1, 0, 1)
	section(6, append(append([]byte{2, typeF64, 1, opF64Const}, make([]byte, 8)...), 0x0b, typeF32, 1, opF32Const, 0, 0, 0, 0, 0x0b)...)
	section(7, 2, 3, 'r', 'u', 'n', 0, 2, 6, 'm', 'e', 'm', 'o', 'r', 'y', 2, 0)
	var code bytes.Buffer
	code.WriteByte(3)
	for _, body := range [][]byte{function(r, pair, pair, false), function(r, parameters, []byte{typeF64}, true), run.Bytes()} {
		putU32(&code, uint32(len(body)))
		code.Write(body)
	}
	section(sectionCode, code.Bytes()...)
	return m.Bytes()
}

// input fills a memory for a program: numbers, and NaNs of all sorts.
func input(r *rand.Rand) []byte {
	b := make([]byte, inputBytes)
	for at := 0; at < len(b); at += 8 {
		v := numbers[r.IntN(len(numbers))]
		if r.IntN(2) == 0 {
			v = math.Float64bits(r.NormFloat64())
		}
		if at%16 == 0 && r.IntN(2) == 0 {
			v = v&^0xffffffff | uint64(numbers32[r.IntN(len(numbers32))])
		}
		binary.LittleEndian.PutUint64(b[at:], v)
	}
	return b
}
