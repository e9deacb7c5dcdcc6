//go:build linux

package sandbox

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// What the test binary can be besides a child of a pool: a parent to be killed, and a child whose program has taken it over.
const (
	parentCommand = "sandbox-parent"
	escapeCommand = "sandbox-escape"
)

// processes is what TestMain does for a first argument.
var processes = map[string]func(args []string){
	parentCommand: func(args []string) { parentToKill(args[0]) },
	escapeCommand: func(args []string) { escape(args[0], args[1]) },
}

// parentToKill is a process with a pool and a task that never ends; it prints its child's process ID.
func parentToKill(dir string) {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	c := DefaultConfig()
	c.Dir, c.Slots, c.Child = dir, 1, []string{self, childCommand}
	p, err := New(c)
	if err != nil {
		panic(err)
	}
	wasm, err := filepath.Abs(contractWasm)
	if err != nil {
		panic(err)
	}
	log := filepath.Join(dir, "task.log")
	go func() {
		_, err := p.Run(context.Background(), Task{
			Program: ProgramRef{ID: "contract", Path: wasm}, Args: []string{"contract", "log-loop"}, Log: log,
			Limits: Limits{Memory: 32 << 20, Log: 1000, Timeout: time.Hour},
		})
		panic(err)
	}()
	for {
		if info, err := os.Stat(log); err == nil && info.Size() > 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	fmt.Println(strings.Join(children(os.Getpid()), " "))
	select {}
}

// children is the IDs of a process's live children.
func children(pid int) []string {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var ids []string
	for _, path := range tasks {
		b, _ := os.ReadFile(path)
		ids = append(ids, strings.Fields(string(b))...)
	}
	return ids
}

// gone reports whether a process has ended; a zombie that nobody has reaped yet has.
func gone(pid string) bool {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return true
	}
	_, after, _ := strings.Cut(string(b), ") ")
	return strings.HasPrefix(after, "Z")
}

func TestKilledParentLeavesNoChild(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.Command(self, parentCommand, filepath.Join(t.TempDir(), "sandbox"))
	parent.Stderr = os.Stderr
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	ids := strings.Fields(line)
	if err != nil || len(ids) == 0 {
		t.Fatalf("the parent has no child: %q %v", line, err)
	}
	for _, id := range ids {
		if gone(id) {
			t.Fatalf("child %s is gone before its parent was killed", id)
		}
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // it was killed
	for _, id := range ids {
		eventually(t, "the child of a killed parent ends", func() bool { return gone(id) })
	}
}

// started runs a task that never ends and returns once it has begun.
func started(t *testing.T, p *Pool, ctx context.Context) chan error {
	t.Helper()
	task := newTask(t, contractWasm, "log-loop")
	task.Log = filepath.Join(p.cfg.Logs[0], "log")
	task.Limits.Timeout = time.Hour
	ended := make(chan error, 1)
	go func() {
		_, err := p.Run(ctx, task)
		ended <- err
	}()
	eventually(t, "the program logs", func() bool {
		b, _ := os.ReadFile(task.Log)
		return string(b) == "looping\n"
	})
	return ended
}

func TestCancelIsPromptAndKillsTheChild(t *testing.T) {
	p := newPool(t, testConfig(t, 1))
	cause := errors.New("the job was cancelled")
	ctx, cancel := context.WithCancelCause(context.Background())
	ended := started(t, p, ctx)
	ids := children(os.Getpid())
	begin := time.Now()
	cancel(cause)
	if err := <-ended; !errors.Is(err, cause) {
		t.Fatalf("error %v does not wrap the cause", err)
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Fatalf("cancelling took %v", d)
	} else {
		t.Logf("cancelling took %v", d)
	}
	for _, id := range ids {
		eventually(t, "the child ends", func() bool { return gone(id) })
	}
	wantClass(t, run(t, p, newTask(t, noopWasm)), ClassDone)
}

func TestCloseStopsWhatRuns(t *testing.T) {
	p := newPool(t, testConfig(t, 1))
	ended := started(t, p, context.Background())
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Fatalf("error %v", err)
	}
	if ids := children(os.Getpid()); len(ids) > 0 {
		t.Fatalf("children are left: %v", ids)
	}
}

func TestCrashedChildIsReplaced(t *testing.T) {
	p := newPool(t, testConfig(t, 1))
	wantClass(t, run(t, p, newTask(t, noopWasm)), ClassDone)
	done := make(chan Result)
	go func() {
		task := newTask(t, contractWasm, "loop")
		r, err := p.Run(context.Background(), task)
		if err != nil {
			t.Error(err)
		}
		done <- r
	}()
	var id string
	eventually(t, "the task runs", func() bool {
		for _, id = range children(os.Getpid()) {
			if cpuTicks(id) > 20 && len(p.compile) == 0 {
				return true
			}
		}
		return false
	})
	pid, _ := strconv.Atoi(id)
	if err := syscall.Kill(pid, syscall.SIGBUS); err != nil {
		t.Fatal(err)
	}
	wantClass(t, <-done, ClassEngine)
	wantClass(t, run(t, p, newTask(t, noopWasm)), ClassDone)
}

// cpuTicks is the user time of a process, in hundredths of a second.
func cpuTicks(pid string) int {
	b, _ := os.ReadFile("/proc/" + pid + "/stat")
	_, after, _ := strings.Cut(string(b), ") ")
	if f := strings.Fields(after); len(f) > 11 {
		n, _ := strconv.Atoi(f[11])
		return n
	}
	return 0
}

func TestIdleChildThatDiedIsNotNoticed(t *testing.T) {
	p := newPool(t, testConfig(t, 1))
	for range 5 {
		wantClass(t, run(t, p, newTask(t, noopWasm)), ClassDone)
		for _, id := range children(os.Getpid()) {
			pid, _ := strconv.Atoi(id)
			_ = syscall.Kill(pid, syscall.SIGKILL) // a compiling child may have ended by itself
		}
		eventually(t, "the child is reaped", func() bool { return !p.idleAlive() })
	}
}

func (p *Pool) idleAlive() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.idle {
		if c.alive() {
			return true
		}
	}
	return false
}

func TestChildrenCanGainNoPrivilegesAndDumpNoCore(t *testing.T) {
	p := newPool(t, testConfig(t, 1))
	wantClass(t, run(t, p, newTask(t, noopWasm)), ClassDone)
	eventually(t, "only the slot's child is left", func() bool { return len(children(os.Getpid())) == 1 })
	seen := 0
	for _, id := range children(os.Getpid()) {
		status, err := os.ReadFile("/proc/" + id + "/status")
		if err != nil || gone(id) {
			continue // the child that compiled
		}
		seen++
		if !strings.Contains(string(status), "NoNewPrivs:\t1") {
			t.Error("the child could gain privileges")
		}
		limits, err := os.ReadFile("/proc/" + id + "/limits")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(limits)) {
			f := strings.Fields(line)
			if strings.HasPrefix(line, "Max core file size") && f[4] != "0" ||
				strings.HasPrefix(line, "Max open files") && f[3] != strconv.Itoa(childFiles) ||
				strings.HasPrefix(line, "Max data size") && f[3] == "unlimited" {
				t.Errorf("limit: %s", line)
			}
		}
		env, err := os.ReadFile("/proc/" + id + "/environ")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(env), "PATH=") {
			t.Error("the child has the parent's environment")
		}
	}
	if seen != 1 {
		t.Errorf("%d children", seen)
	}
}

func TestManyRunsLeakNothing(t *testing.T) {
	p := newPool(t, testConfig(t, 2))
	warm := func(n int) {
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				for i := range n {
					task := newTask(t, contractWasm, "tmp-used")
					if i%10 == 0 {
						task = newTask(t, contractWasm, "tree") // has outputs in host files
					}
					r, err := p.Run(context.Background(), task)
					if err != nil {
						t.Error(err)
					}
					wantDone(t, r)
				}
			})
		}
		wg.Wait()
	}
	warm(20)
	pids := append(children(os.Getpid()), strconv.Itoa(os.Getpid()))
	count := func() (fds int) {
		for _, pid := range pids {
			entries, err := os.ReadDir("/proc/" + pid + "/fd")
			if err != nil {
				t.Fatal(err)
			}
			fds += len(entries)
		}
		return fds
	}
	fds, goroutines := count(), runtime.NumGoroutine()
	warm(500)
	if n := count(); n > fds+4 {
		t.Errorf("%d descriptors open, %d before", n, fds)
	}
	if n := runtime.NumGoroutine(); n > goroutines+4 {
		t.Errorf("%d goroutines, %d before", n, goroutines)
	}
	if left, err := os.ReadDir(filepath.Join(p.cfg.Dir, scratchDir)); err == nil && len(left) > 0 {
		t.Errorf("%d scratch directories are left", len(left))
	}
}

func wantDone(t *testing.T, r Result) {
	t.Helper()
	if r.Class != ClassDone {
		t.Errorf("class %v (%s)", r.Class, r.Reason)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// escape tries what a confined child must not be able to do, and says what it could.
func escape(inside, outside string) {
	if err := os.WriteFile(filepath.Join(inside, "mine"), []byte("x"), 0o600); err != nil {
		fmt.Print("cannot write inside: ", err, "; ")
	}
	if err := os.WriteFile(filepath.Join(outside, "there"), []byte("y"), 0o600); err == nil {
		fmt.Print("wrote a file outside; ")
	}
	if err := os.Truncate(filepath.Join(outside, "there"), 0); err == nil {
		fmt.Print("truncated a file outside; ")
	}
	if err := os.Remove(filepath.Join(outside, "there")); err == nil {
		fmt.Print("removed a file outside; ")
	}
	if l, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		fmt.Print("listens on ", l.Addr(), "; ")
	}
	fmt.Print("end")
	os.Exit(0)
}

func TestChildrenAreConfined(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	inside, outside := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "there"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	s, err := newSpawner([]string{self, escapeCommand, inside, outside}, []string{inside},
		slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.fork()
	if err != nil {
		t.Fatal(err)
	}
	did := p.epitaph()
	p.close()
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(log.String(), "landlock=0") {
		t.Log("this kernel has no Landlock: children are confined by the engine alone")
		return
	}
	if did != "exit status 0: end" {
		t.Errorf("a confined child: %s (%s)", did, log.String())
	}
}
