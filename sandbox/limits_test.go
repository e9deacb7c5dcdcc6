package sandbox

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestClasses(t *testing.T) {
	p := newPool(t, testConfig(t, 1))
	for _, c := range []struct {
		args   string
		class  Class
		exit   int32
		reason string
	}{
		{"exit 0", ClassDone, 0, ""},
		{"exit 3", ClassExit, 3, "exit status 3"},
		{"exit -1", ClassExit, -1, "exit status -1"},
		{"trap", ClassTrap, 0, "trap: unreachable"},
		{"null", ClassTrap, 0, "trap: out of bounds memory access"},
		{"overflow", ClassTrap, 0, "trap: stack overflow"},
		{"memory", ClassExit, 3, "perhaps it needs more"},
		{"endless", ClassOutput, 0, "more than 2097152 bytes of output"},
		{"endless-out", ClassOutput, 0, "more than 2097152 bytes of output"},
		{"endless-tmp", ClassDisk, 0, "more than 4194304 bytes of files"},
		{"sparse", ClassDisk, 0, "more than 4194304 bytes of files"},
		{"outputs 10001", ClassOutput, 0, "more than 10000 files"},
	} {
		r := run(t, p, newTask(t, contractWasm, strings.Fields(c.args)...))
		if r.Class != c.class || r.Exit != c.exit || !strings.Contains(r.Reason, c.reason) {
			t.Errorf("%s: %v, exit %d, %q; want %v, %d, %q", c.args, r.Class, r.Exit, r.Reason, c.class, c.exit, c.reason)
		}
		if r.Class.Completed() != (c.class == ClassDone || c.class == ClassExit) {
			t.Errorf("%s: completed: %v", c.args, r.Class.Completed())
		}
	}
}

func TestTimeoutKillsAndKeepsTheLog(t *testing.T) {
	p := newPool(t, testConfig(t, 1))
	task := newTask(t, contractWasm, "log-loop")
	if err := p.Prepare(context.Background(), task.Program); err != nil {
		t.Fatal(err)
	}
	task.Log = filepath.Join(p.cfg.Logs[0], "log")
	task.Limits.Timeout = 300 * time.Millisecond
	r := run(t, p, task)
	wantClass(t, r, ClassTimeout)
	if got := string(read(t, r.Log)); got != "looping\n" {
		t.Errorf("log %q", got)
	}
	if r.Wall < task.Limits.Timeout {
		t.Errorf("ended after %v", r.Wall)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(task.Log); err != nil {
		t.Errorf("Close took the caller's log: %v", err)
	}
	wantClass(t, run(t, p, newTask(t, noopWasm)), ClassDone)
}

func TestLogIsCappedAndTheProgramGoesOn(t *testing.T) {
	p := newPool(t, testConfig(t, 1))
	for _, path := range []string{"", filepath.Join(p.cfg.Logs[0], "log")} {
		task := newTask(t, contractWasm, "endless-log")
		task.Log = path
		r := run(t, p, task)
		wantClass(t, r, ClassDone)
		log := read(t, r.Log)
		if want := strings.Repeat("0123456789abcdef\n", 10000)[:1<<16]; string(log) != want {
			t.Errorf("log has %d bytes, not the first %d", len(log), len(want))
		}
		if r.LogDropped != 100000*17-1<<16 {
			t.Errorf("%d bytes dropped", r.LogDropped)
		}
		if string(read(t, r.Stdout)) != "went on\n" {
			t.Errorf("stdout %q", read(t, r.Stdout))
		}
		if path != "" && r.Log.Path != path {
			t.Errorf("log is at %q", r.Log.Path)
		}
	}
}

func TestProgramThatNeedsTooMuchMemoryToStart(t *testing.T) {
	p := newPool(t, testConfig(t, 1))
	task := newTask(t, contractWasm, "exit", "0")
	task.Limits.Memory = WasmPage
	r := run(t, p, task)
	wantClass(t, r, ClassMemory)
	if !strings.Contains(r.Reason, "its limit is 65536") {
		t.Errorf("reason %q", r.Reason)
	}
}

// TestDiskStaysUnderTheLimit looks at the host's scratch files of programs that write without end.
func TestDiskStaysUnderTheLimit(t *testing.T) {
	p := newPool(t, testConfig(t, 1))
	for _, part := range []string{"endless", "endless-out", "endless-tmp"} {
		r := run(t, p, newTask(t, contractWasm, part))
		total := int64(0)
		err := filepath.WalkDir(filepath.Join(p.cfg.Dir, scratchDir), func(_ string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			total += info.Size()
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if total > newTask(t, contractWasm).Limits.Disk {
			t.Errorf("%s left %d bytes", part, total)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSeedsDecideClockAndRandom(t *testing.T) {
	p := newPool(t, testConfig(t, 1))
	out := func(part string, change func(*Task)) string {
		task := newTask(t, contractWasm, part)
		change(&task)
		r := run(t, p, task)
		wantClass(t, r, ClassDone)
		return string(read(t, r.Stdout))
	}
	same := func(*Task) {}
	other := func(task *Task) { task.Seed[31]++ }
	real := func(task *Task) { task.Deterministic = false }
	if first, again := out("random", same), out("random", same); first != again {
		t.Error("random differs with the same seed")
	}
	if out("random", same) == out("random", other) {
		t.Error("random is the same with another seed")
	}
	if first, again := out("random", real), out("random", real); first == again {
		t.Error("real random is the same twice")
	}
	if out("clock", same) != out("clock", other) {
		t.Error("the clock depends on the seed")
	}
	if b := out("clock", same); !strings.HasPrefix(b, "1577836800.000001000 1.00000") {
		t.Errorf("the clock starts at %.40s", b)
	}
}

func TestRealClockIsReal(t *testing.T) {
	p := newPool(t, testConfig(t, 1))
	task := newTask(t, contractWasm, "tmp-used")
	task.Deterministic = false
	if err := p.Prepare(context.Background(), task.Program); err != nil {
		t.Fatal(err)
	}
	task.Args[1] = "clock" // sleeps for hours
	task.Limits.Timeout = 200 * time.Millisecond
	wantClass(t, run(t, p, task), ClassTimeout)
}

func TestTmpIsEmptyAtStartAndOutputsAreTheTasksOwn(t *testing.T) {
	p := newPool(t, testConfig(t, 1))
	first := run(t, p, newTask(t, contractWasm, "tmp-used"))
	for range 2 {
		r := run(t, p, newTask(t, contractWasm, "tmp-used"))
		wantClass(t, r, ClassDone)
		if !bytes.Equal(read(t, r.Stdout), read(t, first.Stdout)) {
			t.Errorf("a later task sees: %s", read(t, r.Stdout))
		}
		if len(r.Out) != 1 || r.Out[0].Name != "left" || string(read(t, r.Out[0].Content)) != "left\n" {
			t.Errorf("outputs %+v", r.Out)
		}
	}
}

func TestOutputs(t *testing.T) {
	p := newPool(t, testConfig(t, 1))
	r := run(t, p, newTask(t, contractWasm, "tree"))
	wantClass(t, r, ClassDone)
	var names []string
	for _, o := range r.Out {
		names = append(names, o.Name)
	}
	if got := strings.Join(names, " "); got != "big kept moved/inner moved/zebra2 zebra" {
		t.Errorf("outputs %q", got)
	}
	if big := r.Out[0]; big.Path == "" || big.Size != 60003 {
		t.Errorf("a large output is %+v", big)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(r.Out[0].Path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its file is still there: %v", err)
	}
}

func TestBinaryAndLargeOutput(t *testing.T) {
	p := newPool(t, testConfig(t, 1))
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	if got := read(t, run(t, p, newTask(t, contractWasm, "binary")).Stdout); !bytes.Equal(got, all) {
		t.Errorf("binary output %x", got)
	}
	for _, n := range []int{1, 16 << 10, 16<<10 + 1, 1 << 20} {
		want := bytes.Repeat([]byte{0, 255, '\n', 7}, n/4+1)[:n]
		task := newTask(t, contractWasm, "cat")
		task.Stdin = []string{writeFile(t, "in", want)}
		if got := read(t, run(t, p, task).Stdout); !bytes.Equal(got, want) {
			t.Errorf("%d bytes came back as %d others", n, len(got))
		}
	}
}

func TestMissingHostFilesAreNoFaultOfTheProgram(t *testing.T) {
	p := newPool(t, testConfig(t, 1))
	missing := filepath.Join(t.TempDir(), "missing")
	stdin, in, program := newTask(t, contractWasm, "cat"), newTask(t, contractWasm, "files"), newTask(t, contractWasm)
	stdin.Stdin = []string{missing}
	in.In = []File{{"a.txt", []string{missing}}}
	program.Program = ProgramRef{ID: "other", Path: missing}
	for name, task := range map[string]Task{"stdin": stdin, "in": in, "program": program} {
		if r, err := p.Run(context.Background(), task); err == nil || !strings.Contains(err.Error(), missing) {
			t.Errorf("%s: %v, error %v", name, r.Class, err)
		}
	}
	wantClass(t, run(t, p, newTask(t, noopWasm)), ClassDone)
}

func TestTaskIsValidated(t *testing.T) {
	p := newPool(t, testConfig(t, 1))
	for name, change := range map[string]func(*Task){
		"no program":    func(task *Task) { task.Program = ProgramRef{} },
		"leaves /in":    func(task *Task) { task.In = []File{{"../x", []string{noopWasm}}} },
		"absolute":      func(task *Task) { task.In = []File{{"/etc/x", []string{noopWasm}}} },
		"NUL in name":   func(task *Task) { task.In = []File{{"a\x00b", []string{noopWasm}}} },
		"twice":         func(task *Task) { task.In = []File{{"a", []string{noopWasm}}, {"a", []string{noopWasm}}} },
		"file and dir":  func(task *Task) { task.In = []File{{"a", []string{noopWasm}}, {"a/b", []string{noopWasm}}} },
		"NUL in arg":    func(task *Task) { task.Args = append(task.Args, "\x00") },
		"large args":    func(task *Task) { task.Args = append(task.Args, strings.Repeat("x", MaxArgBytes)) },
		"log elsewhere": func(task *Task) { task.Log = filepath.Join(filepath.Dir(p.cfg.Logs[0]), "log") },
		"no time limit": func(task *Task) { task.Limits.Timeout = 0 },
		"no memory":     func(task *Task) { task.Limits.Memory = 0 },
		"negative disk": func(task *Task) { task.Limits.Disk = -1 },
	} {
		task := newTask(t, noopWasm)
		change(&task)
		if r, err := p.Run(context.Background(), task); err == nil {
			t.Errorf("%s: accepted, %v", name, r.Class)
		}
	}
}

func TestManyTasksAtOnceShareTheSlots(t *testing.T) {
	p := newPool(t, testConfig(t, 2))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			r, err := p.Run(context.Background(), newTask(t, contractWasm, "exit", "5"))
			if err != nil || r.Exit != 5 {
				t.Errorf("%+v %v", r, err)
			}
		})
	}
	wg.Wait()
	if len(p.idle) > 2 {
		t.Errorf("%d children for 2 slots", len(p.idle))
	}
}

func TestWaitingForASlotEndsWithTheContext(t *testing.T) {
	p := newPool(t, testConfig(t, 1))
	p.slots <- struct{}{}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := p.Run(ctx, newTask(t, noopWasm)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	<-p.slots
}

func TestLeftoversOfADeadPoolAreRemoved(t *testing.T) {
	cfg := testConfig(t, 1)
	left := filepath.Join(cfg.Dir, scratchDir, "7", "stdout-1")
	if err := os.MkdirAll(filepath.Dir(left), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(left, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	newPool(t, cfg)
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
	if info, err := os.Stat(cfg.Dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}
