package sandbox

import (
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// childCommand is the first argument with which the test binary becomes a child, as meshd does.
const childCommand = "sandbox-child"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		if os.Args[1] == childCommand {
			os.Exit(ChildMain(os.Args[2:]))
		}
		if command := processes[os.Args[1]]; command != nil {
			command(os.Args[2:])
		}
	}
	flag.Parse()
	goleak.VerifyTestMain(m)
}

func testConfig(t testing.TB, slots int) Config {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := DefaultConfig()
	c.Logs = []string{t.TempDir()}
	c.Dir, c.Slots, c.Child = filepath.Join(t.TempDir(), "sandbox"), slots, []string{self, childCommand}
	return c
}

func newPool(t testing.TB, cfg Config) *Pool {
	t.Helper()
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

const (
	contractWasm  = "testdata/contract/contract.wasm"
	autosaveWasm  = "testdata/autosave/autosave.wasm"
	noopWasm      = "../examples/noop/noop.wasm"
	longcountWasm = "../examples/longcount/longcount.wasm"
)

// newTask is a deterministic task with small limits and all the time that a loaded machine may need.
func newTask(t testing.TB, wasm string, args ...string) Task {
	t.Helper()
	path, err := filepath.Abs(wasm)
	if err != nil {
		t.Fatal(err)
	}
	return Task{
		Program: ProgramRef{ID: filepath.Base(wasm), Path: path},
		Args:    append([]string{filepath.Base(wasm)}, args...),
		Limits:  Limits{Memory: 32 << 20, Disk: 4 << 20, Output: 2 << 20, Log: 1 << 16, Timeout: time.Minute},

		Deterministic: true, Seed: [32]byte{1, 2, 3},
	}
}

// run runs a task whose result is wanted whatever its class.
func run(t testing.TB, p *Pool, task Task) Result {
	t.Helper()
	r, err := p.Run(context.Background(), task)
	if err != nil {
		t.Fatalf("run %q: %v", task.Args, err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// read is all the bytes of contents.
func read(t testing.TB, c Content) []byte {
	t.Helper()
	f, err := c.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(b)) != c.Size {
		t.Fatalf("content has %d bytes and says %d", len(b), c.Size)
	}
	return b
}

// wantClass fails unless the run ended so; it shows the log.
func wantClass(t testing.TB, r Result, want Class) {
	t.Helper()
	if r.Class != want {
		t.Fatalf("class %v (%s), want %v; log:\n%s", r.Class, r.Reason, want, read(t, r.Log))
	}
}

func writeFile(t testing.TB, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// eventually waits for a condition that another process brings about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
		select {
		case <-t.Context().Done():
			t.Fatal("test ended")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestConfigSaysAllThatIsWrong(t *testing.T) {
	_, err := New(Config{Log: DefaultConfig().Log})
	if err == nil {
		t.Fatal("an empty configuration was accepted")
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) < 5 {
		t.Fatalf("want each fault: %v", err)
	}
}

func TestClosedPoolRefuses(t *testing.T) {
	p := newPool(t, testConfig(t, 1))
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Run(context.Background(), newTask(t, noopWasm)); !errors.Is(err, ErrClosed) {
		t.Fatalf("Run after Close: %v", err)
	}
	if err := p.Prepare(context.Background(), newTask(t, noopWasm).Program); !errors.Is(err, ErrClosed) {
		t.Fatalf("Prepare after Close: %v", err)
	}
}

func TestChildThatDoesNotStartIsNoFaultOfTheTask(t *testing.T) {
	for name, command := range map[string][]string{
		"missing":         {filepath.Join(t.TempDir(), "missing")},
		"another program": {"/bin/false"},
	} {
		cfg := testConfig(t, 1)
		cfg.Child = command
		p := newPool(t, cfg)
		if r, err := p.Run(context.Background(), newTask(t, noopWasm)); err == nil || !strings.Contains(err.Error(), "start child") {
			t.Errorf("%s: %v, error %v", name, r.Class, err)
		}
	}
}

// A child that has ended before it is asked anything is one that crashed, whatever its pipe says.
func TestExchangeWithAnEndedChild(t *testing.T) {
	s, err := newSpawner([]string{"/bin/false"}, nil, testConfig(t, 1).Log)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	p, err := s.fork()
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	<-p.dead
	var lost writeError
	if _, _, err := p.exchange(t.Context(), &request{}, time.Minute, nil); !errors.Is(err, errCrashed) || !errors.As(err, &lost) {
		t.Errorf("exchange: %v", err)
	}
}
