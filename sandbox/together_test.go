package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// argTasks print their arguments, 0 to n-1.
func argTasks(t *testing.T, n int) (list []Task) {
	for i := range n {
		list = append(list, newTask(t, contractWasm, "args", strconv.Itoa(i)))
	}
	return list
}

// together runs tasks in a row, with a glance at the children before it waits for one, and gives the results of those that ended.
func together(t *testing.T, ctx context.Context, p *Pool, tasks []Task, glance func(i int)) (out []string, err error) {
	t.Helper()
	n, err := p.RunTogether(ctx, tasks, glance, func(i int, r Result) {
		if i != len(out) {
			t.Errorf("result %d after %d", i, len(out))
		}
		out = append(out, said(t, r))
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	if n != len(out) {
		t.Errorf("%d have ended, of %d there are results", n, len(out))
	}
	return out, err
}

// said is a result in one line.
func said(t *testing.T, r Result) string {
	return fmt.Sprintf("%v %d %q %q", r.Class, r.Exit, read(t, r.Stdout), read(t, r.Log))
}

// alone is what each task says when it is run by itself.
func alone(t *testing.T, p *Pool, tasks []Task) (out []string) {
	t.Helper()
	for _, task := range tasks {
		out = append(out, said(t, run(t, p, task)))
	}
	return out
}

func nothing(int) {}

func TestTogetherIsAsAlone(t *testing.T) {
	p := newPool(t, testConfig(t, 2))
	tasks := append(argTasks(t, 9), newTask(t, contractWasm, "exit", "7"), newTask(t, contractWasm, "trap"),
		newTask(t, contractWasm, "outputs", "3"), newTask(t, contractWasm, "tmp-used"), newTask(t, contractWasm, "tmp-used"))
	tasks[3].Env = []string{"X=1"}
	want := alone(t, p, tasks)
	for range 3 {
		if out, err := together(t, t.Context(), p, tasks, nothing); err != nil || !slices.Equal(out, want) {
			t.Fatalf("%q, error %v; alone %q", out, err, want)
		}
	}
	if n := len(children(os.Getpid())); n != 1 {
		t.Errorf("%d children are left of rows that went well", n)
	}
}

// A task that takes its time ends the row: those before it have their results, and it can be run again.
func TestTogetherEndsAtALongTask(t *testing.T) {
	cfg := testConfig(t, 1)
	p := newPool(t, cfg)
	tasks := argTasks(t, 6)
	want := alone(t, p, tasks)[:3]
	tasks[3] = newTask(t, contractWasm, "log-loop")
	tasks[3].Log = filepath.Join(cfg.Logs[0], "log")
	if out, err := together(t, t.Context(), p, tasks, nothing); !errors.Is(err, errTimeout) || !slices.Equal(out, want) {
		t.Fatalf("%q, error %v; want %q", out, err, want)
	}
	eventually(t, "nothing is left of it", func() bool {
		left, _ := filepath.Glob(filepath.Join(cfg.Dir, scratchDir, "*"))
		return len(left) == 0 && len(children(os.Getpid())) == 0
	})
	if out, err := together(t, t.Context(), p, tasks[4:], nothing); err != nil || len(out) != 2 {
		t.Fatalf("%q, error %v", out, err)
	}
}

// Nobody is blamed for a child that dies in a row.
func TestTogetherWithACrash(t *testing.T) {
	p := newPool(t, testConfig(t, 1))
	tasks := argTasks(t, 4)
	want := alone(t, p, tasks)[:1]
	tasks[1] = newTask(t, contractWasm, "loop")
	kill := func(i int) {
		if i == 1 {
			for _, id := range children(os.Getpid()) {
				pid, _ := strconv.Atoi(id)
				_ = syscall.Kill(pid, syscall.SIGBUS) // one that compiled may have ended by itself
			}
		}
	}
	if out, err := together(t, t.Context(), p, tasks, kill); !errors.Is(err, errCrashed) || !slices.Equal(out, want) {
		t.Fatalf("%q, error %v; want %q", out, err, want)
	}
	wantClass(t, run(t, p, tasks[2]), ClassDone)
}

func TestTogetherIsCancelled(t *testing.T) {
	p := newPool(t, testConfig(t, 1))
	cause := errors.New("the job was cancelled")
	ctx, cancel := context.WithCancelCause(t.Context())
	tasks := argTasks(t, 4)
	tasks[2] = newTask(t, contractWasm, "loop")
	out, err := together(t, ctx, p, tasks, func(i int) {
		if i == 2 {
			cancel(cause)
		}
	})
	if !errors.Is(err, cause) || len(out) != 2 {
		t.Fatalf("%q, error %v", out, err)
	}
	eventually(t, "its child is gone", func() bool { return len(children(os.Getpid())) == 0 })
	if n, err := p.RunTogether(ctx, tasks, nothing, nil); n != 0 || !errors.Is(err, cause) {
		t.Errorf("%d, error %v", n, err)
	}
}

// What there is no room for is left over; what can't be run together is refused before anything runs.
func TestTogetherHasBounds(t *testing.T) {
	p := newPool(t, testConfig(t, 1))
	tasks := argTasks(t, 4)
	for i := range tasks {
		tasks[i].Args = append(tasks[i].Args, strings.Repeat("x", maxTogether/3))
	}
	if out, err := together(t, t.Context(), p, tasks, nothing); err != nil || len(out) != 2 {
		t.Errorf("%d results, error %v", len(out), err)
	}
	tasks[0].Args[1] = strings.Repeat("x", maxTogether)
	if out, err := together(t, t.Context(), p, tasks, nothing); err != nil || len(out) != 0 {
		t.Errorf("%d results, error %v", len(out), err)
	}
	for name, list := range map[string][]Task{
		"a bad task":       {argTasks(t, 1)[0], {}},
		"another program":  {argTasks(t, 1)[0], newTask(t, noopWasm)},
		"a missing module": {newTask(t, "testdata/missing.wasm")},
	} {
		if out, err := together(t, t.Context(), p, list, nothing); err == nil || len(out) != 0 {
			t.Errorf("%s: %q, error %v", name, out, err)
		}
	}
	if out, err := together(t, t.Context(), p, argTasks(t, 2), nothing); err != nil || len(out) != 2 {
		t.Errorf("%q, error %v", out, err)
	}
}

// An answer is not held for long while the next task runs, and no answer is lost or doubled.
func TestOutboxHoldsAnswersForAWhile(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	o := &outbox{to: w}
	next := func() (a response) {
		t.Helper()
		if _, err := readFrame(r, &a); err != nil {
			t.Fatal(err)
		}
		return a
	}
	for i := range int32(3) {
		for k := range int32(2) {
			if err := o.send(response{Exit: 2*i + k}, nil, true); err != nil {
				t.Fatal(err)
			}
		}
		for k := range int32(2) {
			if a := next(); a.Exit != 2*i+k { // though nothing followed
				t.Fatalf("answer %d, want %d", a.Exit, 2*i+k)
			}
		}
	}
	if err := errors.Join(o.send(response{Exit: 6}, nil, true), o.send(response{Exit: 7}, make([]byte, maxHeld), true)); err != nil {
		t.Fatal(err)
	}
	if a, b := next(), next(); a.Exit != 6 || b.Exit != 7 || len(o.held) != 0 {
		t.Errorf("answers %d and %d, %d bytes are held", a.Exit, b.Exit, len(o.held))
	}
	r.Close()
	for range 2 {
		if err := o.send(response{}, nil, false); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("to a pipe without reader: %v", err)
		}
	}
}
