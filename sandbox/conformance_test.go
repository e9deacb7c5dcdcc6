package sandbox

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/golden.txt instead of comparing with it")

// conformance is the parts of the contract whose results must be the same bytes with either engine: their digests are in
// testdata/golden.txt, which both builds of this test are compared with.
var conformance = []struct {
	name string
	task func(t *testing.T) Task
}{
	{"args", contractTask("args", "two words", "", "ünï")},
	{"cat", withStdin(contractTask("cat"), strings.Repeat("a line of text\n", 50_000))},
	{"cat-empty", contractTask("cat")},
	{"stdin-seek", withStdin(contractTask("stdin-seek"), "0123456789")},
	{"stdin-seek-parts", withStdin(contractTask("stdin-seek"), "", "0", "12345", "", "6789", "")},
	{"cat-parts", withStdin(contractTask("cat"), strings.Repeat("a line of text\n", 20_000), "", strings.Repeat("a line of text\n", 30_000))},
	{"files", withIn(contractTask("files"))},
	{"tree", contractTask("tree")},
	{"clock", contractTask("clock")},
	{"random", contractTask("random")},
	{"state", contractTask("state", "5")},
	{"state-files", contractTask("state-files")},
	{"floats", contractTask("floats")},
	{"exit-0", contractTask("exit", "0")},
	{"exit-1", contractTask("exit", "1")},
	{"exit-255", contractTask("exit", "255")},
	{"exit-large", contractTask("exit", "70000")},
	{"trap", contractTask("trap")},
	{"null", contractTask("null")},
	{"overflow", contractTask("overflow")},
	{"memory", contractTask("memory")},
	{"endless", contractTask("endless")},
	{"endless-log", contractTask("endless-log")},
	{"endless-out", contractTask("endless-out")},
	{"endless-tmp", contractTask("endless-tmp")},
	{"endless-state", contractTask("endless-state")},
	{"sparse", contractTask("sparse")},
	{"many-outputs", contractTask("outputs", "300")},
	{"too-many-outputs", contractTask("outputs", "10001")},
	{"binary", contractTask("binary")},
	{"autosave", func(t *testing.T) Task { return newTask(t, autosaveWasm, "5") }},
	{"longcount", func(t *testing.T) Task { return newTask(t, longcountWasm, "3", "1") }},
	{"noop", func(t *testing.T) Task { return newTask(t, noopWasm) }},
	{"index", func(t *testing.T) Task {
		task := newTask(t, "../examples/index/index.wasm")
		task.Env = []string{"MESH_TASK_INDEX=42"}
		return task
	}},
	{"burn", func(t *testing.T) Task { return newTask(t, "../examples/burn/burn.wasm", "2") }},
	{"wordcount", withStdin(wordcountTask("count"), strings.Repeat("The quick, brown fox; the QUICK dog's tail 7x8y\n", 3000))},
	{"wordcount-merge", withStdin(wordcountTask("merge"), "a 1\nb 22\na 41\nzz 18446744073709551600\n")},
	{"go-hash", withStdin(goTask("../examples/hash", "hash"), "abc")},
	{"go-collatz", goTask("../examples/collatz", "collatz", "2000000")},
	{"go-guest", withIn(goTask("./testdata/guest", "guest"))},
}

func contractTask(args ...string) func(*testing.T) Task {
	return func(t *testing.T) Task {
		task := newTask(t, contractWasm, args...)
		task.Env = []string{"MESH_STAGE=map", "MESH_TASK_INDEX=7", "EMPTY="}
		return task
	}
}

func wordcountTask(mode string) func(*testing.T) Task {
	return func(t *testing.T) Task { return newTask(t, "../examples/wordcount/wordcount.wasm", mode) }
}

// withStdin gives a task an input, in as many host files as there are texts.
func withStdin(make func(*testing.T) Task, texts ...string) func(*testing.T) Task {
	return func(t *testing.T) Task {
		task := make(t)
		for i, text := range texts {
			task.Stdin = append(task.Stdin, writeFile(t, fmt.Sprint("stdin-", i), []byte(text)))
		}
		return task
	}
}

func withIn(make func(*testing.T) Task) func(*testing.T) Task {
	return func(t *testing.T) Task {
		task := make(t)
		task.In = []File{
			{"z.txt", []string{writeFile(t, "z", []byte("last"))}},
			{"a.txt", []string{writeFile(t, "a", []byte("first file"))}},
			{"deep/er/file with spaces", []string{writeFile(t, "f", nil)}},
			{"deep/b", []string{writeFile(t, "b", []byte("b"))}},
		}
		return task
	}
}

var goPrograms sync.Map // by package: func() (string, error)

// goTask builds a Go program once a run of the tests.
func goTask(pkg, name string, args ...string) func(*testing.T) Task {
	return func(t *testing.T) Task {
		build, _ := goPrograms.LoadOrStore(pkg, sync.OnceValues(func() (string, error) {
			dir, err := os.MkdirTemp("", "sandbox-test-")
			if err != nil {
				return "", err
			}
			wasm := filepath.Join(dir, name+".wasm")
			cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", wasm, pkg)
			cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
			if out, err := cmd.CombinedOutput(); err != nil {
				return dir, fmt.Errorf("%w: %s", err, out)
			}
			return wasm, nil
		}))
		wasm, err := build.(func() (string, error))()
		if err != nil {
			t.Fatal(err)
		}
		task := newTask(t, wasm, args...)
		task.Limits.Memory = 128 << 20
		return task
	}
}

// removeGoPrograms is called at the end of the tests that build them.
func removeGoPrograms() {
	goPrograms.Range(func(key, build any) bool {
		wasm, _ := build.(func() (string, error))()
		_ = os.RemoveAll(filepath.Dir(wasm))
		goPrograms.Delete(key)
		return true
	})
}

// varies is an output that the guest in Go writes what depends on the version of Go to: the same from run to run, but not
// golden.
const varies = "varies"

func varying(t *testing.T, r Result) string {
	for _, o := range r.Out {
		if o.Name == varies {
			return string(read(t, o.Content))
		}
	}
	return ""
}

// outcome is what a result consists of: the part that must not depend on peer, engine or time.
func outcome(t *testing.T, r Result) string {
	var b bytes.Buffer
	reason := r.Reason
	if r.Class == ClassProgram {
		reason = "" // in the engine's words
	}
	fmt.Fprintf(&b, "%v %d %q\nlog %d+%d %x\n", r.Class, r.Exit, reason, r.Log.Size, r.LogDropped, sha256.Sum256(read(t, r.Log)))
	if !r.Class.Completed() {
		return b.String()
	}
	fmt.Fprintf(&b, "stdout %x\n", sha256.Sum256(read(t, r.Stdout)))
	for _, o := range r.Out {
		if o.Name == varies {
			continue
		}
		fmt.Fprintf(&b, "%q %x\n", o.Name, sha256.Sum256(read(t, o.Content)))
	}
	return b.String()
}

// TestConformance runs every part twice, in different children and with the cache cold and warm.
func TestConformance(t *testing.T) {
	t.Cleanup(removeGoPrograms)
	golden := readGolden(t)
	cfg := testConfig(t, 2)
	got, varied := map[string]string{}, map[string]string{}
	for range 2 {
		p := newPool(t, cfg)
		for _, c := range conformance {
			t.Run(c.name, func(t *testing.T) {
				r := run(t, p, c.task(t))
				text := outcome(t, r)
				digest := fmt.Sprintf("%x", sha256.Sum256([]byte(text)))
				if *update && got[c.name] == "" {
					golden[c.name] = digest
				}
				got[c.name] = digest
				if v := varying(t, r); varied[c.name] == "" {
					varied[c.name] = v
				} else if v != varied[c.name] {
					t.Errorf("differs from run to run:\n%s\n%s", varied[c.name], v)
				}
				if digest != golden[c.name] {
					t.Errorf("differs from testdata/golden.txt:\n%s\nstdout:\n%.8000s\nlog:\n%.500s", text, stdoutOf(t, r), read(t, r.Log))
				}
			})
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if *update {
		var b strings.Builder
		for _, c := range conformance {
			fmt.Fprintf(&b, "%s %s\n", c.name, golden[c.name])
		}
		if err := os.WriteFile("testdata/golden.txt", []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func stdoutOf(t *testing.T, r Result) []byte {
	if !r.Class.Completed() {
		return nil
	}
	return read(t, r.Stdout)
}

func readGolden(t *testing.T) map[string]string {
	golden := map[string]string{}
	b, err := os.ReadFile("testdata/golden.txt")
	if err != nil && !*update {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		name, digest, _ := strings.Cut(strings.TrimSpace(line), " ")
		golden[name] = digest
	}
	return golden
}
