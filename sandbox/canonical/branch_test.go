//go:build cgo

package canonical

import (
	"encoding/hex"
	"testing"

	"github.com/bytecodealliance/wasmtime-go/v44"
)

// TestBranching: selects between floats and vectors of every origin are gone, those between integers stay, and what the
// module computes is the same. The first is the shape that wazero v1.12.0 gets wrong on amd64.
func TestBranching(t *testing.T) {
	wasm := func(wat string) []byte {
		b, err := wasmtime.Wat2Wasm(wat)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	module := func(body string) []byte {
		return wasm(`(module (memory (export "memory") 1)
			(global $g f64 (f64.const 4)) (global $i i64 (i64.const 4))
			(func $f (param f64) (result f64) f64.const inf local.get 0 f64.sub f64.const inf f64.sub)
			(func $h (param f64) (result f64 f64) local.get 0 local.get 0)
			(func (export "run") (local $a f64) (local $b f64) (local $s f32) (local $v v128) i32.const 1024 ` + body + `))`)
	}
	input := make([]byte, inputBytes)
	input[8], input[20] = 1, 3
	for name, c := range map[string]struct {
		body    string
		selects int
	}{
		"wazero 2534": {`i32.const 0 f64.load offset=8 local.tee $a local.get $a call $f local.tee $b f64.const nan local.get $b local.get $b f64.ge select f64.copysign f64.store`, 0},
		"locals":      {`local.get $a local.get $b i32.const 16 i32.load select f64.store`, 0},
		"loads":       {`i32.const 8 f32.load i32.const 16 f32.load i32.const 16 i32.load8_u select f32.store`, 0},
		"constants":   {`f64.const 1 f64.const 2 i32.const 0 select f64.store`, 0},
		"globals":     {`global.get $g global.get $g i32.const 0 select f64.store`, 0},
		"results":     {`f64.const 3 call $h i32.const 0 select f64.store`, 0},
		"blocks":      {`block (result f64) global.get $g end block (result f64) f64.const 7 end i32.const 1 select f64.store`, 0},
		"converted":   {`i32.const 3 f64.convert_i32_s i64.const 9 f64.reinterpret_i64 i32.const 0 select f64.store`, 0},
		"typed":       {`local.get $s local.get $s i32.const 1 select (result f32) f32.store`, 0},
		"vectors":     {`local.get $v i32.const 16 v128.load i32.const 0 select v128.store`, 0},
		"lanes":       {`local.get $v f64x2.extract_lane 1 local.get $v f64x2.extract_lane 0 i32.const 0 select f64.store`, 0},
		"nested":      {`f64.const 1 f64.const 2 i32.const 0 select f64.const 3 f64.const 4 i32.const 1 select i32.const 1 select f64.store`, 0},
		"integers":    {`global.get $i i64.const 5 i32.const 0 select i64.store`, 1},
		"bits":        {`local.get $v i64x2.extract_lane 1 local.get $a i64.reinterpret_f64 i32.const 0 select i64.store`, 1},
	} {
		t.Run(name, func(t *testing.T) {
			plain := module(c.body)
			branching, err := Branching(plain)
			if err != nil {
				t.Fatal(err)
			}
			want := inWasmtime(true)(t, plain, [][]byte{input})[0]
			for engine, run := range map[string]runner{"wasmtime": inWasmtime(false), "wazero": inWazero} {
				if got := run(t, branching, [][]byte{input})[0]; string(got) != string(want) {
					t.Errorf("%s: %s, want %s", engine, hex.EncodeToString(got[resultsAt:resultsAt+16]), hex.EncodeToString(want[resultsAt:resultsAt+16]))
				}
			}
			if n := selectsIn(t, branching); n != c.selects {
				t.Errorf("%d selects, want %d", n, c.selects)
			}
		})
	}
}

// selectsIn counts the selects in a module.
func selectsIn(t *testing.T, wasm []byte) (n int) {
	r := &reader{b: wasm[headerBytes:]}
	for len(r.b) > 0 && !r.failed {
		id := r.byte()
		section := &reader{b: r.take(r.u32())}
		if id != sectionCode {
			continue
		}
		for range section.u32() {
			body := &reader{b: section.take(section.u32())}
			for range body.u32() {
				body.u32()
				body.byte()
			}
			for len(body.b) > 0 && !body.failed {
				if body.instruction().act == chooses {
					n++
				}
			}
		}
	}
	return n
}
