//go:build linux

package sandbox

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestIdleChildrenEnd(t *testing.T) {
	cfg := testConfig(t, 2)
	cfg.IdleTimeout = 50 * time.Millisecond
	p := newPool(t, cfg)
	for range 2 {
		wantClass(t, run(t, p, newTask(t, noopWasm)), ClassDone)
		eventually(t, "no child is left", func() bool { return len(children(os.Getpid())) == 0 })
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) != 0 || p.watcher != nil {
		t.Errorf("%d idle children, watcher %v", len(p.idle), p.watcher)
	}
}

func TestWarmHasAChildReady(t *testing.T) {
	p := newPool(t, testConfig(t, 1))
	if err := p.Prepare(context.Background(), newTask(t, noopWasm).Program); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the child that compiled is gone", func() bool { return len(children(os.Getpid())) == 0 })
	for range 10 {
		p.Warm()
	}
	wantClass(t, run(t, p, newTask(t, noopWasm)), ClassDone) // waits for the one that starts
	if n := len(children(os.Getpid())); n != 1 {
		t.Errorf("%d children", n)
	}
	p.Warm()
	if n := len(children(os.Getpid())); n != 1 {
		t.Errorf("%d children though one is idle", n)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p.Warm() // does nothing
}

// rss is the resident memory of a process in KiB.
func rss(t *testing.T, pid string) int {
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); f[0] == "VmRSS:" {
			n, _ := strconv.Atoi(f[1])
			return n
		}
	}
	t.Fatal("no resident memory")
	return 0
}

func TestManyCheckpointsLeaveNothing(t *testing.T) {
	p := newPool(t, eager(t))
	count := 0
	task := newTask(t, autosaveWasm, "100000000")
	task.Auto = 1
	var memory, fds, goroutines int
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	task.Checkpoint = func(_ context.Context, s Snapshot) {
		ids := children(os.Getpid())
		if len(ids) != 1 {
			return // the one that compiled is ending
		}
		switch count++; count {
		case 500: // its heap is as large as it gets
			memory, fds, goroutines = rss(t, ids[0]), descriptors(t, ids[0]), runtime.NumGoroutine()
		case 1500:
			if n := rss(t, ids[0]); n > memory+16<<10 {
				t.Errorf("the child has %d KiB, %d before", n, memory)
			}
			if n := descriptors(t, ids[0]); n > fds+4 {
				t.Errorf("%d descriptors open, %d before", n, fds)
			}
			if n := runtime.NumGoroutine(); n > goroutines+4 {
				t.Errorf("%d goroutines, %d before", n, goroutines)
			}
			if found, _ := os.ReadDir(filepath.Dir(s.Path)); len(found) > maxSnapshots {
				t.Errorf("%d scratch files", len(found))
			}
			cancel()
		}
	}
	r, err := p.Run(ctx, task)
	if err == nil {
		wantClass(t, r, ClassDone)
		t.Fatalf("%d snapshots", count)
	}
	eventually(t, "the scratch directory is removed", func() bool {
		left, _ := os.ReadDir(filepath.Join(p.cfg.Dir, scratchDir))
		return len(left) == 0
	})
}

// descriptors is how many descriptors this process and a child have open.
func descriptors(t *testing.T, pid string) (n int) {
	for _, pid := range []string{pid, strconv.Itoa(os.Getpid())} {
		entries, err := os.ReadDir("/proc/" + pid + "/fd")
		if err != nil {
			t.Fatal(err)
		}
		n += len(entries)
	}
	return n
}
