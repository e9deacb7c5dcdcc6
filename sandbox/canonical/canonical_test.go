package canonical

import (
	"bytes"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/tetratelabs/wazero"
)

// programs are real modules: every instruction of theirs is read.
var programs = []string{
	"../testdata/contract/contract.wasm", "../../examples/wordcount/wordcount.wasm", "../../examples/burn/burn.wasm",
	"../../examples/index/index.wasm", "../../examples/noop/noop.wasm",
}

func readProgram(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRealProgramsStayValid(t *testing.T) {
	ctx := context.Background()
	r := wazero.NewRuntime(ctx)
	defer r.Close(ctx)
	for _, path := range programs {
		wasm := readProgram(t, path)
		out, err := NaN(wasm)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if _, err := r.CompileModule(ctx, out); err != nil {
			t.Errorf("%s: not valid any more: %v", path, err)
		}
		for n := 0; n < len(wasm); n += 1 + len(wasm)/300 {
			if _, err := NaN(wasm[:n]); err != nil && !errors.Is(err, ErrFormat) {
				t.Fatalf("%s cut off at %d: error of another kind: %v", path, n, err)
			}
		}
	}
}

// twoOperands makes a module with one function "f" of two parameters and a result of type t, which applies op to both.
func twoOperands(t byte, op ...byte) []byte {
	body := append([]byte{0, 0x20, 0, 0x20, 1}, op...)
	body = append(body, 0x0b)
	m := []byte("\x00asm\x01\x00\x00\x00")
	m = append(m, 1, 7, 1, 0x60, 2, t, t, 1, t)
	m = append(m, 3, 2, 1, 0, 7, 5, 1, 1, 'f', 0, 0)
	m = append(m, 10, byte(len(body)+2), 1, byte(len(body)))
	return append(m, body...)
}

func TestArithmeticMakesCanonicalNaNs(t *testing.T) {
	ctx := context.Background()
	r := wazero.NewRuntime(ctx)
	defer r.Close(ctx)
	const strange32, strange64 = 0xffc12345, 0xfff4dead0000beef
	inf, minus := math.Float64bits(math.Inf(1)), math.Float64bits(math.Inf(-1))
	one32, one64 := uint64(math.Float32bits(1)), math.Float64bits(1)
	for _, c := range []struct {
		name     string
		kind, op byte
		a, b     uint64
		want     uint64
	}{
		{"f64 inf - inf", 0x7c, 0xa0, inf, minus, 0x7ff8000000000000},
		{"f64 0 / 0", 0x7c, 0xa3, 0, 0, 0x7ff8000000000000},
		{"f64 NaN + 1", 0x7c, 0xa0, strange64, one64, 0x7ff8000000000000},
		{"f64 min", 0x7c, 0xa4, strange64, one64, 0x7ff8000000000000},
		{"f64 1 + 1", 0x7c, 0xa0, one64, one64, math.Float64bits(2)},
		{"f64 -0 + -0", 0x7c, 0xa0, 1 << 63, 1 << 63, 1 << 63},
		{"f64 copysign keeps bits", 0x7c, 0xa6, strange64, 0, strange64 &^ (1 << 63)},
		{"f32 0 / 0", 0x7d, 0x95, 0, 0, 0x7fc00000},
		{"f32 NaN * 1", 0x7d, 0x94, strange32, one32, 0x7fc00000},
		{"f32 1 + 1", 0x7d, 0x92, one32, one32, uint64(math.Float32bits(2))},
		{"f32 max", 0x7d, 0x97, one32, strange32, 0x7fc00000},
	} {
		out, err := NaN(twoOperands(c.kind, c.op))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		instance, err := r.InstantiateWithConfig(ctx, out, wazero.NewModuleConfig().WithName(""))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		got, err := instance.ExportedFunction("f").Call(ctx, c.a, c.b)
		if err != nil || got[0] != c.want {
			t.Errorf("%s: %x, %v, want %x", c.name, got, err, c.want)
		}
	}
}

// withBody makes a module with one function "f" of an i32 with an f64 result, a local variable of f64, and a memory that
// starts with a NaN of strange bits.
func withBody(body ...byte) []byte {
	body = append(append([]byte{1, 1, 0x7c}, body...), 0x0b)
	m := []byte("\x00asm\x01\x00\x00\x00")
	m = append(m, 1, 6, 1, 0x60, 1, 0x7f, 1, 0x7c)
	m = append(m, 3, 2, 1, 0, 5, 3, 1, 0, 1, 7, 5, 1, 1, 'f', 0, 0)
	m = append(m, 10, byte(len(body)+2), 1, byte(len(body)))
	m = append(m, body...)
	return append(m, 11, 14, 1, 0, 0x41, 0, 0x0b, 8, 0xef, 0xbe, 0, 0, 0xad, 0xde, 0xf4, 0xff)
}

const canonicalNaN, strangeNaN = 0x7ff8000000000000, 0xfff4dead0000beef

// TestPathsAreToldApart is a local that holds a NaN of arithmetic's on one path and one that was loaded on another.
func TestPathsAreToldApart(t *testing.T) {
	ctx := context.Background()
	r := wazero.NewRuntime(ctx)
	defer r.Close(ctx)
	load := []byte{0x41, 0, 0x2b, 0, 0, 0x21, 1}                                                                 // local = memory[0]
	divide := append([]byte{0x20, 0, 0xb7, 0x44, 0, 0, 0, 0, 0, 0, 0, 0, 0xa2, 0x22, 1}, 0x20, 1, 0xa3, 0x21, 1) // local = 0 / 0
	for _, c := range []struct {
		name      string
		body      [][]byte
		zero, one uint64
	}{
		{"left early by a branch", [][]byte{{0x02, 0x40}, load, {0x20, 0, 0x0d, 0}, divide, {0x0b, 0x20, 1}}, canonicalNaN, strangeNaN},
		{"replaced in one branch", [][]byte{load, {0x20, 0, 0x04, 0x40}, divide, {0x0b, 0x20, 1}}, strangeNaN, canonicalNaN},
		{"one in each branch", [][]byte{{0x20, 0, 0x04, 0x40}, load, {0x05}, divide, {0x0b, 0x20, 1}}, canonicalNaN, strangeNaN},
		{"left for good", [][]byte{{0x02, 0x40, 0x02, 0x40, 0x20, 0, 0x0d, 0}, load, {0x0c, 1, 0x0b}, divide, {0x0b, 0x20, 1}}, strangeNaN, canonicalNaN},
		{"negated behind a label", [][]byte{divide, {0x20, 1, 0x9a, 0x21, 1, 0x02, 0x40, 0x0b, 0x20, 1}}, 1<<63 | canonicalNaN, 1<<63 | canonicalNaN},
	} {
		out, err := NaN(withBody(bytes.Join(c.body, nil)...))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		instance, err := r.InstantiateWithConfig(ctx, out, wazero.NewModuleConfig().WithName(""))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		for argument, want := range []uint64{c.zero, c.one} {
			got, err := instance.ExportedFunction("f").Call(ctx, uint64(argument))
			if err != nil || got[0] != want {
				t.Errorf("%s: f(%d) = %x, %v, want %x", c.name, argument, got, err, want)
			}
		}
	}
}

func TestOnlyWhatIsSeenIsMadeCanonical(t *testing.T) {
	get, add, set := []byte{0x20, 1}, []byte{0xa0}, []byte{0x21, 1}
	for _, c := range []struct {
		name string
		body [][]byte
		want int
	}{
		{"a sum of sums", [][]byte{get, get, add, get, add, get, add}, 1},
		{"a sum that is compared", [][]byte{get, get, add, get, {0x63, 0x1a}, get}, 0},
		{"a sum that is dropped", [][]byte{get, get, add, {0x1a}, get}, 0},
		{"a sum kept over rounds of a loop", [][]byte{{0x03, 0x40}, get, get, add, set, {0x20, 0, 0x0d, 0, 0x0b}, get}, 1},
		{"a sum that is replaced", [][]byte{get, get, add, set, {0x41, 0, 0x2b, 0, 0}, set, get}, 0},
	} {
		out, err := NaN(withBody(bytes.Join(c.body, nil)...))
		if n := bytes.Count(out, sequences[f64].nan); err != nil || n != c.want {
			t.Errorf("%s: %d results are made canonical, %v, want %d", c.name, n, err, c.want)
		}
	}
}

func TestModuleWithoutFloatsStaysAsItIs(t *testing.T) {
	wasm := twoOperands(0x7f, 0x6a) // i32.add
	out, err := NaN(wasm)
	if err != nil || !bytes.Equal(out, wasm) {
		t.Errorf("%x became %x, %v", wasm, out, err)
	}
}

func FuzzNaN(f *testing.F) {
	for _, path := range programs[3:] {
		f.Add(readProgram(f, path))
	}
	f.Add(twoOperands(0x7c, 0xa0))
	for seed := range uint64(20) {
		f.Add(program(rand.New(rand.NewPCG(seed, 2))))
	}
	f.Fuzz(func(t *testing.T, wasm []byte) {
		out, err := NaN(wasm)
		if err != nil {
			return
		}
		// Each operation becomes at most 40 bytes more; a section's or body's size grows by a few.
		if len(out) > 64*len(wasm)+64 {
			t.Errorf("%d bytes became %d", len(wasm), len(out))
		}
		if _, err := NaN(out); err != nil {
			t.Errorf("what was written cannot be read: %v", err)
		}
	})
}
