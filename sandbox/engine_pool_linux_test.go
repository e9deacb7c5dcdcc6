//go:build cgo

package sandbox

import (
	"fmt"
	"testing"

	"github.com/bytecodealliance/wasmtime-go/v44"
	"golang.org/x/sys/unix"
)

// TestPoolMemory wants the library to have what poolMemory asks for, and to do it: a second instance finds no place.
func TestPoolMemory(t *testing.T) {
	c := wasmtime.NewConfig()
	if !poolMemory(c) {
		t.Fatal("programs do not share a memory: wasmtime's library or the Go package's Config is another")
	}
	e := wasmtime.NewEngineWithConfig(c)
	defer e.Close()
	wasm, err := wasmtime.Wat2Wasm(`(module (memory 1))`)
	if err != nil {
		t.Fatal(err)
	}
	m, err := wasmtime.NewModule(e, wasm)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for _, want := range []bool{true, false} {
		s := wasmtime.NewStore(e)
		defer s.Close()
		if _, err := wasmtime.NewInstance(s, m, nil); (err == nil) != want {
			t.Errorf("an instance: error %v, want one: %v", err, !want)
		}
	}
}

// TestNothingIsLeftOfAProgram has programs that look for what another wrote into memory, also beyond what stays resident
// and what it grew by, into a table and into a global, take turns in one child.
func TestNothingIsLeftOfAProgram(t *testing.T) {
	p := newPool(t, testConfig(t, 1))
	var tasks []Task
	for _, pages := range []int{8, 2} {
		wasm, err := wasmtime.Wat2Wasm(fmt.Sprintf(`(module
			(memory (export "memory") %[1]d)
			(data (i32.const 1000) "abc")
			(data (i32.const 100000) "xyz")
			(table 4 funcref)
			(elem (i32.const 2) func $want)
			(elem declare func $want)
			(global $g (mut i32) (i32.const 7))
			(func $want (param i32) (if (i32.eqz (local.get 0)) (then unreachable)))
			(func (export "_start") (local $i i32) (local $sum i32)
				(call $want (i32.eq (memory.size) (i32.const %[1]d)))
				(call $want (i32.eq (global.get $g) (i32.const 7)))
				(call $want (ref.is_null (table.get 0 (i32.const 1))))
				(call $want (i32.eqz (ref.is_null (table.get 0 (i32.const 2)))))
				(loop $next
					(local.set $sum (i32.add (local.get $sum) (i32.load8_u (local.get $i))))
					(local.set $i (i32.add (local.get $i) (i32.const 1)))
					(br_if $next (i32.lt_u (local.get $i) (i32.mul (memory.size) (i32.const 65536)))))
				(call $want (i32.eq (local.get $sum) (i32.const 657)))
				(drop (memory.grow (i32.const 16)))
				(memory.fill (i32.const 0) (i32.const 255) (i32.mul (memory.size) (i32.const 65536)))
				(table.set 0 (i32.const 1) (ref.func $want))
				(table.set 0 (i32.const 2) (ref.null func))
				(global.set $g (i32.const 8))))`, pages))
		if err != nil {
			t.Fatal(err)
		}
		tasks = append(tasks, newTask(t, writeFile(t, fmt.Sprintf("%d.wasm", pages), wasm)))
	}
	tasks = append(tasks, newTask(t, "../examples/index/index.wasm", "7"))
	for range 3 {
		for _, task := range tasks {
			wantClass(t, run(t, p, task), ClassDone)
		}
	}
}

// TestSmallAfterLarge has a program with a small limit begin in a child whose memory was large a moment ago, and is still
// counted as the child's: what the last one was given is not held against it.
func TestSmallAfterLarge(t *testing.T) {
	cfg := testConfig(t, 1)
	cfg.ChildMemory = 512 << 20
	p := newPool(t, cfg)
	wasm, err := wasmtime.Wat2Wasm(`(module (memory (export "memory") 1)
		(func (export "_start") (if (i32.lt_s (memory.grow (i32.const 40000)) (i32.const 0)) (then unreachable))))`)
	if err != nil {
		t.Fatal(err)
	}
	large := newTask(t, writeFile(t, "large.wasm", wasm))
	large.Limits.Memory = 3 << 30
	small := newTask(t, "../examples/index/index.wasm", "7")
	run(t, p, small)
	for range 3 {
		wantClass(t, run(t, p, large), ClassDone)
		wantClass(t, run(t, p, small), ClassDone)
		var data unix.Rlimit
		if err := unix.Prlimit(p.idle[0].cmd.Process.Pid, unix.RLIMIT_DATA, nil, &data); err != nil {
			t.Fatal(err)
		}
		if want := uint64(cfg.ChildMemory + 40_001*WasmPage); data.Cur < want {
			t.Errorf("a child that may still have %d bytes had a limit of %d", want, data.Cur)
		}
		wantClass(t, run(t, p, newTask(t, contractWasm, "args", "x")), ClassDone)
	}
}
