package sandbox

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// moduleBytes puts sections behind a module's header. Each is an ID and its bytes.
func moduleBytes(sections ...string) []byte {
	b := []byte("\x00asm\x01\x00\x00\x00")
	for _, s := range sections {
		b = append(b, s[0], byte(len(s)-1))
		b = append(b, s[1:]...)
	}
	return b
}

func name(s string) string { return string(rune(len(s))) + s }

func TestCheck(t *testing.T) {
	types, functions, memory := "\x01\x01\x60\x00\x00", "\x03\x01\x00", "\x05\x01\x00\x01"
	exports := "\x07\x02" + name("memory") + "\x02\x00" + name("_start") + "\x00\x00"
	importing := func(module, field, desc string) []byte {
		return moduleBytes(types, "\x02\x01"+name(module)+name(field)+desc, functions, memory, exports)
	}
	for _, c := range []struct {
		name string
		wasm []byte
		want string // "" for a good program
	}{
		{"good", moduleBytes(types, functions, memory, exports), ""},
		{"wasi", importing("wasi_snapshot_preview1", "fd_write", "\x00\x00"), ""},
		{"mesh", importing("mesh", "progress", "\x00\x00"), ""},
		{"custom section", moduleBytes("\x00"+name("name")+"x", types, functions, memory, exports), ""},
		{"empty", nil, "not WebAssembly"},
		{"script", []byte("#!/bin/sh\necho hello\n"), "not WebAssembly"},
		{"native", []byte("\x7fELF\x02\x01\x01\x00\x00"), "not WebAssembly"},
		{"component", []byte("\x00asm\x0d\x00\x01\x00"), "is a component"},
		{"version", []byte("\x00asm\x02\x00\x00\x00"), "version 2"},
		{"no start", moduleBytes(types, functions, memory, "\x07\x01"+name("memory")+"\x02\x00"), "no function _start"},
		{"start is a memory", moduleBytes(types, functions, memory, "\x07\x02"+name("memory")+"\x02\x00"+name("_start")+"\x02\x00"), "no function _start"},
		{"no memory", moduleBytes(types, functions, "\x07\x01"+name("_start")+"\x00\x00"), "exports no memory"},
		{"bare", moduleBytes(), "no function _start"},
		{"foreign module", importing("env", "system", "\x00\x00"), `imports from "env"`},
		{"older WASI", importing("wasi_unstable", "fd_write", "\x00\x00"), `imports from "wasi_unstable"`},
		{"unknown function", importing("mesh", "exec", "\x00\x00"), `"mesh"."exec", which is not offered`},
		{"imported memory", importing("mesh", "progress", "\x02\x00\x01"), "not a function"},
		{"shared memory", moduleBytes(types, functions, "\x05\x01\x03\x01\x02", exports), "shared"},
		{"64-bit memory", moduleBytes(types, functions, "\x05\x01\x04\x01", exports), "64-bit"},
		{"two memories", moduleBytes(types, functions, "\x05\x02\x00\x01\x00\x01", exports), "2 memories"},
		{"tables", moduleBytes(types, functions, "\x04\x02\x70\x00\x05\x6f\x01\x05\x06", memory, exports), ""},
		{"many tables", moduleBytes(types, functions, "\x04\x05"+strings.Repeat("\x70\x00\x01", 5), memory, exports), "5 tables, the limit is 4"},
		{"large table", moduleBytes(types, functions, "\x04\x01\x70\x00\x81\x80\x40", memory, exports), "1048577 elements"},
		{"64-bit table", moduleBytes(types, functions, "\x04\x01\x70\x04\x01", memory, exports), "table is of a kind"},
		{"exceptions", moduleBytes(types, functions, memory, "\x0d\x01\x00\x00", exports), "section 13"},
		{"cut off", moduleBytes(types, functions, memory, exports)[:40], "cut off or damaged"},
		{"section too long", append(moduleBytes(types), 7, 100, 1), "cut off or damaged"},
		{"many imports", moduleBytes(types, "\x02\xff\xff\xff\xff\x0f"), "imports, the limit"},
		{"large number", moduleBytes(types, "\x02\xff\xff\xff\xff\x7f"), "damaged"},
	} {
		err := Check(c.wasm, 1<<20)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (!errors.Is(err, ErrNotProgram) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
	}
}

func TestCheckExamples(t *testing.T) {
	for _, path := range []string{noopWasm, contractWasm, "../examples/wordcount/wordcount.wasm", "../examples/burn/burn.wasm", "../examples/index/index.wasm"} {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := Check(b, int64(len(b))); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if err := Check(b, int64(len(b))-1); !errors.Is(err, ErrNotProgram) || !strings.Contains(err.Error(), "the limit is") {
			t.Errorf("%s over the limit: %v", path, err)
		}
	}
}

func FuzzCheck(f *testing.F) {
	for _, path := range []string{noopWasm, "../examples/index/index.wasm"} {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := Check(b, 1<<20); err != nil && !errors.Is(err, ErrNotProgram) {
			t.Errorf("error of another kind: %v", err)
		}
	})
}

// FuzzAnswer reads what a child that has been taken over might say.
func FuzzAnswer(f *testing.F) {
	dir := f.TempDir()
	f.Add([]byte(`{"Class":1,"Stdout":{"Size":3},"Out":[{"Name":"a","Size":1,"File":"../../etc/passwd"}]}`), []byte("abc"))
	f.Fuzz(func(t *testing.T, header, body []byte) {
		var frame strings.Builder
		if len(header) > 1<<16 || len(body) > 1<<16 {
			return
		}
		frame.Write([]byte{byte(len(header)), byte(len(header) >> 8), 0, 0, byte(len(body)), byte(len(body) >> 8), 0, 0})
		frame.Write(header)
		frame.Write(body)
		var a response
		b, err := readFrame(strings.NewReader(frame.String()), &a)
		if err != nil {
			return
		}
		r, err := received(a, b, Task{}, dir)
		if err != nil {
			return
		}
		for _, o := range append(r.Out, OutFile{Content: r.Stdout}) {
			if o.Path != "" {
				t.Errorf("a file that is not there was accepted: %+v", o)
			}
		}
	})
}
