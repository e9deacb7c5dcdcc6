package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// snapshots gathers the snapshots of a task, the newest last.
type snapshots struct {
	t    *testing.T
	mu   sync.Mutex
	list [][]byte
	each func(n int) // called after each
}

func (s *snapshots) take(_ context.Context, snap Snapshot) {
	b, err := os.ReadFile(snap.Path)
	if err != nil || int64(len(b)) != snap.Size || snap.At <= 0 {
		s.t.Errorf("snapshot %+v: %d bytes, error %v", snap, len(b), err)
	}
	s.mu.Lock()
	s.list = append(s.list, b)
	n := len(s.list)
	s.mu.Unlock()
	if s.each != nil {
		s.each(n)
	}
}

func (s *snapshots) last() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.list) == 0 {
		s.t.Fatal("there was no snapshot")
	}
	return s.list[len(s.list)-1]
}

// eager is a pool's configuration with a snapshot at each checkpoint.
func eager(t *testing.T) Config {
	cfg := testConfig(t, 1)
	cfg.CheckpointEvery = 1
	return cfg
}

// snapshotOf runs a task until it traps and returns its last snapshot.
func snapshotOf(t *testing.T, p *Pool, task Task) []byte {
	s := &snapshots{t: t}
	task.Checkpoint = s.take
	wantClass(t, run(t, p, task), ClassTrap)
	return s.last()
}

// from is the task that goes on from a snapshot.
func from(t *testing.T, task Task, state []byte) Task {
	task.State = writeFile(t, "state", state)
	return task
}

// results is what counts of a result: all but its log.
func results(t *testing.T, r Result) string {
	var b strings.Builder
	b.WriteString(r.Class.String() + "\n")
	b.Write(read(t, r.Stdout))
	for _, o := range r.Out {
		b.WriteString("== " + o.Name + "\n")
		b.Write(read(t, o.Content))
	}
	return b.String()
}

// goldenState is a snapshot that both engines must make, byte for byte, and go on from: so either goes on from the other's.
const goldenState = "testdata/golden.state"

func TestSnapshotIsTheSameWithEitherEngine(t *testing.T) {
	p := newPool(t, eager(t))
	task := newTask(t, contractWasm, "state", "5", "0", "1") // the first is always taken
	got := snapshotOf(t, p, task)
	if *update {
		if err := os.WriteFile(goldenState, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(goldenState)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the snapshot is not %s:\n%q\n%q", goldenState, got, want)
	}
	undisturbed := results(t, run(t, p, newTask(t, contractWasm, "state", "5")))
	resumed := run(t, p, from(t, task, want))
	if log := string(read(t, resumed.Log)); log != "starts at 1\n" {
		t.Errorf("it went on otherwise: %q", log)
	}
	if got := results(t, resumed); got != undisturbed {
		t.Errorf("another result:\n%s\nundisturbed:\n%s", got, undisturbed)
	}
}

// TestKilledTaskGoesOnElsewhere kills the child in the middle of each program after a checkpoint, and goes on in a new pool.
func TestKilledTaskGoesOnElsewhere(t *testing.T) {
	t.Cleanup(removeGoPrograms)
	autosave := newTask(t, autosaveWasm, "500")
	autosave.Auto = 1
	for name, task := range map[string]Task{
		"contract":  newTask(t, contractWasm, "state", "300", "5000"),
		"autosave":  autosave,
		"longcount": newTask(t, longcountWasm, "8", "1"),
		"collatz":   goTask("../examples/collatz", "collatz", "8000000")(t),
	} {
		t.Run(name, func(t *testing.T) {
			cfg := eager(t) // its directory keeps the compiled program
			p := newPool(t, cfg)
			undisturbed := run(t, p, task)
			wantClass(t, undisturbed, ClassDone)
			want := results(t, undisturbed)
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			lives := 0
			for state := []byte(nil); ; lives++ {
				r, last := untilKilled(t, cfg, task, state)
				if last != nil {
					state = last
					continue
				}
				if got := results(t, r); got != want {
					t.Errorf("after %d deaths another result:\n%s\nundisturbed:\n%s", lives, got, want)
				}
				t.Logf("%d deaths; the last life: %s", lives, read(t, r.Log))
				break
			}
			if lives == 0 {
				t.Error("it ended before it could be killed")
			}
		})
	}
}

// untilKilled runs a task in a pool of its own and kills it after its third checkpoint; if it got that far, it returns
// the newest snapshot.
func untilKilled(t *testing.T, cfg Config, task Task, state []byte) (Result, []byte) {
	p := newPool(t, cfg)
	if state != nil {
		task = from(t, task, state)
	}
	killed := errors.New("killed")
	ctx, kill := context.WithCancelCause(context.Background())
	defer kill(nil)
	s := &snapshots{t: t, each: func(n int) {
		if n == 3 {
			kill(killed)
		}
	}}
	task.Checkpoint = s.take
	r, err := p.Run(ctx, task)
	if errors.Is(err, killed) {
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		return r, s.last()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	wantClass(t, r, ClassDone)
	return r, nil
}

func TestBadStateIsToldApart(t *testing.T) {
	p := newPool(t, testConfig(t, 1))
	task := newTask(t, contractWasm, "state", "3")
	good, err := os.ReadFile(goldenState)
	if err != nil {
		t.Fatal(err)
	}
	flipped, older := bytes.Clone(good), bytes.Clone(good)
	flipped[40] ^= 1 // in the seed
	older[len("mesh state")] = 0
	for _, c := range []struct {
		name, says string
		state      []byte
		change     func(*Task)
	}{
		{"flipped", "damaged", flipped, nil},
		{"older", "version 0, not 1", older, nil},
		{"cut off", "cut off", good[:len(good)-5], nil},
		{"empty", "cut off", nil, nil},
		{"another file", "none", []byte(strings.Repeat("x", 100)), nil},
		{"nondeterministic", "nondeterministic", good, func(t *Task) { t.Deterministic = false }},
		{"no room", "bytes", good, func(t *Task) { t.Limits.Disk = 10 }},
	} {
		task := from(t, task, c.state)
		if c.change != nil {
			c.change(&task)
		}
		_, err := p.Run(context.Background(), task)
		if !errors.Is(err, ErrState) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v", c.name, err)
		}
	}
	task.State = filepath.Join(t.TempDir(), "missing")
	if _, err := p.Run(context.Background(), task); err == nil || errors.Is(err, ErrState) {
		t.Errorf("a missing file is the host's fault: error %v", err)
	}
	wantClass(t, run(t, p, from(t, newTask(t, contractWasm, "state", "3"), good)), ClassDone)
	if left, err := os.ReadDir(filepath.Join(p.cfg.Dir, scratchDir)); err == nil && len(left) > 0 {
		t.Errorf("%d scratch directories are left", len(left))
	}
}

func TestCheckpointsAreNotMoreThanWanted(t *testing.T) {
	cfg := testConfig(t, 1)
	cfg.CheckpointEvery = time.Hour
	p := newPool(t, cfg)
	s := &snapshots{t: t}
	task := newTask(t, contractWasm, "state", "1000")
	task.Checkpoint = s.take
	wantClass(t, run(t, p, task), ClassDone)
	if len(s.list) != 0 {
		t.Errorf("%d snapshots in less than an hour", len(s.list))
	}
	auto := newTask(t, contractWasm, "state", "1000")
	auto.Auto, auto.Checkpoint = 1, s.take
	wantClass(t, run(t, newPool(t, eager(t)), newTask(t, contractWasm, "state", "1000")), ClassDone) // nobody wants any
	wantClass(t, run(t, p, auto), ClassDone)
	if len(s.list) != 0 {
		t.Errorf("%d snapshots of a program that chooses itself", len(s.list))
	}
}

// TestAutoWaitsUntilFilesAreClosed has a program that keeps a file in /state open.
func TestAutoWaitsUntilFilesAreClosed(t *testing.T) {
	p := newPool(t, eager(t))
	s := &snapshots{t: t}
	task := newTask(t, autosaveWasm, "100", "open")
	task.Auto, task.Checkpoint = 1, s.take
	wantClass(t, run(t, p, task), ClassDone)
	if len(s.list) != 0 {
		t.Errorf("%d snapshots while a file was open for writing", len(s.list))
	}
}

// TestSlowCallbackGetsTheNewest holds up the first snapshot; the rest must neither wait nor pile up.
func TestSlowCallbackGetsTheNewest(t *testing.T) {
	p := newPool(t, eager(t))
	task := newTask(t, contractWasm, "state", "1000000", "100")
	task.Limits.Disk = 64 << 20
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var states [][]byte
	most := 0
	task.Checkpoint = func(_ context.Context, snap Snapshot) {
		found := func() []string {
			list, _ := filepath.Glob(filepath.Join(filepath.Dir(snap.Path), "state-*"))
			return list
		}
		if states == nil {
			eventually(t, "the tenth snapshot is made", func() bool {
				most = max(most, len(found()))
				return slices.ContainsFunc(found(), func(path string) bool { return len(filepath.Base(path)) == len("state-10") })
			})
		}
		b, err := os.ReadFile(snap.Path)
		if err != nil {
			t.Error(err)
		}
		if states = append(states, b); len(states) == 2 {
			cancel()
		}
	}
	if _, err := p.Run(ctx, task); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	if len(states) != 2 || most < 2 || most > maxSnapshots {
		t.Fatalf("%d snapshots were delivered, %d on disk", len(states), most)
	}
	task.Checkpoint = nil
	task.Args[2] = "1"
	r := run(t, p, from(t, task, states[1]))
	round := 0
	if _, err := fmt.Sscanf(string(read(t, r.Log)), "starts at %d", &round); err != nil || round < 10 {
		t.Errorf("the second is not the newest: round %d", round)
	}
}

func TestSnapshotMayBeMovedAway(t *testing.T) {
	p := newPool(t, eager(t))
	kept := filepath.Join(t.TempDir(), "kept")
	task := newTask(t, contractWasm, "state", "9", "0", "4")
	task.Checkpoint = func(_ context.Context, s Snapshot) {
		if err := os.Rename(s.Path, kept); err != nil {
			t.Error(err)
		}
	}
	wantClass(t, run(t, p, task), ClassTrap)
	task.State = kept
	wantClass(t, run(t, p, task), ClassDone)
}

func TestProgressIsReported(t *testing.T) {
	p := newPool(t, testConfig(t, 1))
	var most, calls atomic.Int64
	task := newTask(t, contractWasm, "state", "4000")
	task.Progress = func(permille int) {
		calls.Add(1)
		most.Store(max(most.Load(), int64(permille)))
	}
	begin := time.Now()
	wantClass(t, run(t, p, task), ClassDone)
	if n := calls.Load(); n == 0 || n > 1+int64(time.Since(begin)/progressEvery) {
		t.Errorf("%d reports in %v", n, time.Since(begin))
	}
	if most.Load() > 1000 {
		t.Errorf("%d permille", most.Load())
	}
}

// TestChildThatReportsNonsenseIsEnded has notices that no child sends.
func TestChildThatReportsNonsenseIsEnded(t *testing.T) {
	task := newTask(t, contractWasm)
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, stateFile(2)), 0o700); err != nil {
		t.Fatal(err)
	}
	c := newCourier(context.Background(), &task, dir, DefaultConfig().Log)
	if c.take(notice{State: 1}) == nil {
		t.Error("a snapshot that nobody wants was taken")
	}
	task.Checkpoint = func(context.Context, Snapshot) { t.Error("it was delivered") }
	for n := uint64(1); n <= 2; n++ {
		if c.take(notice{State: n}) == nil {
			t.Errorf("snapshot %d, which is no file, was taken", n)
		}
	}
	got := make(chan int, 1)
	task.Progress = func(permille int) { got <- permille }
	if err := c.take(notice{Progress: 1 << 40}); err != nil {
		t.Error(err)
	}
	c.end(false)
	if n := <-got; n != 1000 {
		t.Errorf("%d permille", n)
	}
}
