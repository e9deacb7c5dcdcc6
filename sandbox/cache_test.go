package sandbox

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// compiled makes a pool with the noop program's code in its cache, closes it, and returns the file with that code.
func compiled(t *testing.T, cfg Config) string {
	t.Helper()
	p := newPool(t, cfg)
	if err := p.Prepare(context.Background(), newTask(t, noopWasm).Program); err != nil {
		t.Fatal(err)
	}
	var code string
	err := filepath.WalkDir(p.cache.entry("noop.wasm"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != macFile {
			code = path
		}
		return err
	})
	if err != nil || code == "" {
		t.Fatalf("no code in the cache: %v", err)
	}
	return code
}

func change(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func modified(t *testing.T, path string) time.Time {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.ModTime()
}

func TestCacheIsUsedByTheNextPool(t *testing.T) {
	cfg := testConfig(t, 1)
	code := compiled(t, cfg)
	before := modified(t, code)
	wantClass(t, run(t, newPool(t, cfg), newTask(t, noopWasm)), ClassDone)
	if !modified(t, code).Equal(before) {
		t.Error("compiled again")
	}
}

func TestDamagedOrForeignCodeIsNotLoaded(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, cfg Config, code string){
		"code":      func(t *testing.T, _ Config, code string) { change(t, code) },
		"key":       func(t *testing.T, cfg Config, _ string) { change(t, filepath.Join(cfg.Dir, keyFile)) },
		"short key": func(t *testing.T, cfg Config, _ string) { truncate(t, filepath.Join(cfg.Dir, keyFile)) },
		"empty":     func(t *testing.T, _ Config, code string) { truncate(t, code) },
		"another file": func(t *testing.T, _ Config, code string) {
			if err := os.WriteFile(code+"2", []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"link": func(t *testing.T, _ Config, code string) {
			if err := os.Rename(code, code+".moved"); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(code+".moved", code); err != nil {
				t.Fatal(err)
			}
		},
		"entry of another program": func(t *testing.T, cfg Config, _ string) {
			c, err := openCache(cfg.Dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(c.entry("noop.wasm"), c.entry("contract.wasm")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t, 1)
			code := compiled(t, cfg)
			spoil(t, cfg, code)
			c, err := openCache(cfg.Dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range []string{"noop.wasm", "contract.wasm"} {
				if c.usable(id) {
					t.Errorf("%s would be loaded", id)
				}
			}
			p := newPool(t, cfg)
			wantClass(t, run(t, p, newTask(t, noopWasm)), ClassDone)
			r := run(t, p, newTask(t, contractWasm, "exit", "4"))
			if r.Exit != 4 {
				t.Errorf("exit status %d of another program", r.Exit)
			}
			if !p.cache.usable("noop.wasm") {
				t.Error("not compiled again")
			}
		})
	}
}

func truncate(t *testing.T, path string) {
	t.Helper()
	if err := os.Truncate(path, 3); err != nil {
		t.Fatal(err)
	}
}

// TestCodeThatGoesAwayIsCompiledAgain spoils an entry that the pool knows to be there.
func TestCodeThatGoesAwayIsCompiledAgain(t *testing.T) {
	p := newPool(t, testConfig(t, 1))
	task := newTask(t, noopWasm)
	if err := p.Prepare(context.Background(), task.Program); err != nil {
		t.Fatal(err)
	}
	change(t, filepath.Join(p.cache.entry(task.Program.ID), macFile))
	wantClass(t, run(t, p, task), ClassDone)
}

func TestCacheIsBounded(t *testing.T) {
	cfg := testConfig(t, 1)
	p := newPool(t, cfg)
	ids := []string{"a", "b", "c", "d"}
	for i, id := range ids {
		task := newTask(t, noopWasm)
		task.Program.ID = id
		if err := p.Prepare(context.Background(), task.Program); err != nil {
			t.Fatal(err)
		}
		then := time.Now().Add(time.Duration(i-10) * time.Minute)
		if err := os.Chtimes(filepath.Join(p.cache.entry(id), macFile), then, then); err != nil {
			t.Fatal(err)
		}
	}
	p.cache.used("a")
	size := int64(0)
	err := filepath.WalkDir(p.cache.entry("a"), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			info, _ := d.Info()
			size += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cache.trim(2 * size); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]bool{"a": true, "b": false, "c": false, "d": true} {
		if p.cache.usable(id) != want {
			t.Errorf("%s is there: %v", id, !want)
		}
	}
}

func TestKeyIsPrivate(t *testing.T) {
	cfg := testConfig(t, 1)
	compiled(t, cfg)
	info, err := os.Stat(filepath.Join(cfg.Dir, keyFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
}

func TestBadProgramsAreRefusedByPrepare(t *testing.T) {
	p := newPool(t, testConfig(t, 1))
	noop, err := os.ReadFile(noopWasm)
	if err != nil {
		t.Fatal(err)
	}
	// A module whose outside is right and whose only function, at its end, is not: a byte before the last is no instruction.
	bad := string(noop[:len(noop)-2]) + "\xff\x0b"
	for name, wasm := range map[string]string{"bad code": bad, "no module": "#!/bin/sh\n"} {
		program := ProgramRef{ID: name, Path: writeFile(t, "bad.wasm", []byte(wasm))}
		for range 2 {
			if err := p.Prepare(context.Background(), program); !errors.Is(err, ErrProgram) {
				t.Errorf("%s: error %v", name, err)
			}
		}
		task := newTask(t, noopWasm)
		task.Program = program
		wantClass(t, run(t, p, task), ClassProgram)
	}
}

func TestCompilationHasATimeLimit(t *testing.T) {
	cfg := testConfig(t, 1)
	cfg.CompileTimeout = time.Nanosecond
	p := newPool(t, cfg)
	err := p.Prepare(context.Background(), newTask(t, contractWasm).Program)
	if !errors.Is(err, ErrProgram) || !strings.Contains(err.Error(), "to compile") {
		t.Errorf("error %v", err)
	}
	wantClass(t, run(t, p, newTask(t, contractWasm)), ClassProgram)
	if len(p.known) != 0 {
		t.Error("a limit of this host's is remembered as a fault of the program")
	}
}

// TestEngineVersion keeps the name that code is cached under, and the engine, the same.
func TestEngineVersion(t *testing.T) {
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	name, version, _ := strings.Cut(engineVersion, " ")
	found := false
	for line := range strings.Lines(string(mod)) {
		f := strings.Fields(line)
		found = found || len(f) == 2 && strings.Contains(f[0], name) && f[1] == version
	}
	if !found {
		t.Errorf("go.mod has not %s", engineVersion)
	}
	if EngineName() != name {
		t.Errorf("EngineName %q", EngineName())
	}
}
