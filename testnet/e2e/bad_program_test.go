package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compute-mesh/mesh/job"
)

// A program that no peer could run is refused before anything is sent.
func TestProgramsThatCannotRun(t *testing.T) {
	p, dir := network(t).peers[0], t.TempDir()
	const module = "\x00asm\x01\x00\x00\x00"
	const noImports = "\x01\x04\x01\x60\x00\x00"                     // one type: func()
	const foreign = noImports + "\x02\x0b\x01\x03env\x03foo\x00\x00" // env.foo of it
	big := write(t, filepath.Join(dir, "big.wasm"), module)
	if err := os.Truncate(big, job.MaxProgram+1); err != nil {
		t.Fatal(err)
	}
	jobs := p.ok(t, "ls")
	for name, test := range map[string]struct {
		bytes string
		said  []string
	}{
		"text":      {"#!/bin/sh\necho hello\n", []string{"WebAssembly"}},
		"empty":     {"", []string{"empty.wasm"}},
		"component": {"\x00asm\x0d\x00\x01\x00", []string{"component"}},
		"foreign":   {module + foreign, []string{"env", "wasi_snapshot_preview1"}},
		"no start":  {module, []string{"_start"}},
		"cut off":   {read(t, contract)[:1000], []string{"cut off.wasm"}},
		"native":    {"\x7fELF" + strings.Repeat("\x00", 100), []string{"WebAssembly"}},
	} {
		file := write(t, filepath.Join(dir, name+".wasm"), test.bytes)
		r := p.run(t, "submit", "--array", "1", "--map", "'"+file+"'", "-o", "-").want(t, 2, test.said...)
		t.Log(r.err)
		r = p.run(t, "submit", "--array", "1", "--map", contract+" cat", "--reduce", "'"+file+"'", "-o", "-").want(t, 2, test.said...)
		if r.out != "" {
			t.Errorf("%s: printed %q", name, r.out)
		}
	}
	t.Log(p.run(t, "submit", "--array", "1", "--map", big).want(t, 2, "64 MiB").err)
	if now := p.ok(t, "ls"); strings.Count(now, "\n") != strings.Count(jobs, "\n") {
		t.Errorf("a refused program made a job: %s", now)
	}
}

// Tasks that go wrong in every way fail with a reason, and leave the peer able to run the
// next.
func TestTasksThatGoWrong(t *testing.T) {
	p := start(t, t.TempDir(), "--slots", "1", "--quota", "64MiB", "--memory", "512MiB")
	fails := func(what string, said ...string) {
		t.Helper()
		t.Log(p.run(t, append([]string{"submit", "--retries", "0", "-o", "-", "--array", "1", "--map"}, strings.Split(what, "|")...)...).want(t, 1, said...).err)
	}
	fails(contract+" trap", "map/0", "trap")
	fails(contract+" null", "map/0", "memory")
	fails(contract+" overflow", "map/0", "stack")
	fails(contract+" exit 255", "exit status 255")
	fails(contract+" loop|--timeout|200ms", "200ms")
	fails(contract+" endless", "map/0", "output")
	fails(contract+" endless-out", "map/0", "/out")
	fails(contract+" endless-tmp", "map/0", "/tmp")
	fails(contract+" outputs 2000", "2000 files", "256")
	fails(contract+" memory|--memory|32MiB", "exit status 3") // malloc gives NULL, and the program says so
	fails(contract+" sparse", "map/0")
	r := p.run(t, "submit", "--array", "1", "--map", contract+" endless-log", "-o", "-").want(t, 0)
	if r.out != "went on\n" { // a log is cut, the task is not
		t.Errorf("printed %q", r.out)
	}
	if got := p.ok(t, "submit", "--array", "2", "--map", program("index"), "-o", "-"); got != "0\n1\n" {
		t.Errorf("afterwards: %q", got)
	}
}

// A task may ask for more than any peer here lends: its job says so.
func TestAJobThatNobodyCanRun(t *testing.T) {
	p := start(t, t.TempDir(), "--slots", "1", "--memory", "128MiB")
	r := p.run(t, "submit", "--detach", "--array", "1", "--memory", "1GiB", "--map", program("index")).want(t, 0, "warning", "memory")
	t.Log(r.err)
	job := strings.TrimSpace(r.out)
	eventually(t, "the job is stalled", func() bool { return p.status(t, job).State == "stalled" })
	if s := p.status(t, job); !strings.Contains(s.Reason, "memory") {
		t.Errorf("it is stalled because of %q", s.Reason)
	}
	p.ok(t, "cancel", job)
}
