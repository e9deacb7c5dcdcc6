package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/compute-mesh/mesh/sandbox/wasi"
)

// Snapshot is what was in a task's /state at a checkpoint, with the position of its deterministic clock and random source: what
// Task.State of another run of the same task goes on from, on any peer, with either engine. The same state gives the same
// bytes. The format is described in package wasi.
type Snapshot struct {
	Path string        // host file; it belongs to the callback, which may move it away, and is removed when that returns
	Size int64         // bytes, at most MaxState
	At   time.Duration // wall time from the start of the run until the snapshot was there
}

// MaxState is the most bytes of a snapshot of a task with that Limits.Disk: what is larger cannot be restored.
func MaxState(disk int64) int64 { return wasi.MaxState(disk) }

// ErrState is in the error of Run for a Task.State that cannot be restored: damaged, of another version (the text names it), of
// a task that was deterministic where this one is not, or too large for the task's limits. Nothing was run: the caller can take
// an older snapshot, or none.
var ErrState = errors.New("sandbox: the state cannot be restored")

const (
	// stateShare bounds what snapshots cost: from one to the next a task runs this many times as long as the last one took.
	stateShare = 10
	// progressEvery is the least wall time between two reports of progress.
	progressEvery = 500 * time.Millisecond
	// maxSnapshots is how many snapshots of a task can be on disk: the one that a callback has, the newest that waits for
	// it, and the one that is being written. Each can be as large as Limits.Disk.
	maxSnapshots = 3
)

// notice is what a child says while a task runs: that a snapshot is in the scratch directory, that one could not be made, or
// how far the program is.
type notice struct {
	State    uint64 `cbor:",omitempty"` // number of the snapshot, from 1
	Failed   string `cbor:",omitempty"` // why it is not there
	Progress int    // permille, if there is no State
}

// stateFile is the name in the scratch directory of a snapshot.
func stateFile(number uint64) string { return "state-" + strconv.FormatUint(number, 10) }

// reporter makes a child's notices, in calls from the program.
type reporter struct {
	sys     *wasi.System
	out     *outbox
	scratch string
	every   time.Duration // least time between snapshots; 0 for none at all
	auto    time.Duration // time between those that the program does not ask for; 0 for none

	count uint64        // of snapshots
	files []string      // those that may still be there
	last  time.Time     // end of the last one, or start of the run
	took  time.Duration // time for it

	progress uint32    // the last that was sent
	sent     time.Time // when
}

// checkpoint takes a snapshot, unless the last one is too fresh or has the same files. The program is not told which, nor
// that the host had no room: its result could depend on the host then.
func (r *reporter) checkpoint() {
	if r.every > 0 && r.sys.Unsaved() && r.due(r.every) && r.room() {
		r.save()
	}
}

// unsaved takes a snapshot on the interval, of a program that leaves it to the host.
func (r *reporter) unsaved() {
	if r.due(max(r.auto, r.every)) && r.sys.Quiet() && r.room() {
		r.save()
	}
}

func (r *reporter) due(every time.Duration) bool {
	return time.Since(r.last) >= max(every, stateShare*r.took)
}

// room reports whether another snapshot may be on disk: not while the pool is behind with those that there are.
func (r *reporter) room() bool {
	r.files = slices.DeleteFunc(r.files, func(path string) bool {
		_, err := os.Lstat(path)
		return err != nil
	})
	return len(r.files) < maxSnapshots
}

func (r *reporter) save() {
	begin := time.Now()
	r.count++
	n := notice{State: r.count}
	path := filepath.Join(r.scratch, stateFile(r.count))
	if err := r.write(path); err != nil {
		n.Failed = firstLine(err.Error())
	} else {
		r.files = append(r.files, path)
	}
	r.last = time.Now()
	r.took = r.last.Sub(begin)
	r.send(n)
}

func (r *reporter) write(path string) error {
	if err := os.MkdirAll(r.scratch, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(r.sys.SaveState(f), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

func (r *reporter) report(permille uint32) {
	if permille != r.progress && time.Since(r.sent) >= progressEvery {
		r.progress, r.sent = permille, time.Now()
		r.send(notice{Progress: int(permille)})
	}
}

// send writes a notice. A pipe that is broken is found out when the task has ended.
func (r *reporter) send(n notice) { _ = r.out.send(response{Notice: &n}, nil, false) }

// courier brings a running task's notices to its callbacks, in one goroutine that is there while there is something to bring. It
// holds one snapshot: a newer one takes the place of one that still waits.
type courier struct {
	task    *Task
	scratch string
	begin   time.Time
	log     *slog.Logger
	ctx     context.Context // of the callbacks
	cancel  context.CancelFunc
	failed  bool // a snapshot could not be made

	mu       sync.Mutex
	busy     bool
	state    *Snapshot
	progress *int
	idle     sync.WaitGroup
}

func newCourier(ctx context.Context, t *Task, scratch string, log *slog.Logger) *courier {
	c := &courier{task: t, scratch: scratch, begin: time.Now(), log: log}
	c.ctx, c.cancel = context.WithCancel(ctx)
	return c
}

// take takes a notice and does not wait. What it says is not trusted: an error means that the child is out of order.
func (c *courier) take(n notice) error {
	switch {
	case n.State == 0:
		permille := min(max(n.Progress, 0), 1000)
		c.post(nil, &permille)
		return nil
	case c.task.Checkpoint == nil:
		return errors.New("sandbox: a snapshot that nobody wants")
	case n.Failed != "":
		if !c.failed {
			c.failed = true // once a task: it tries again as often as it would have succeeded
			c.log.Warn("sandbox: a task goes on without a checkpoint", "error", n.Failed)
		}
		return nil
	}
	s := &Snapshot{Path: filepath.Join(c.scratch, stateFile(n.State)), At: time.Since(c.begin)}
	info, err := os.Lstat(s.Path)
	if err != nil {
		return fmt.Errorf("sandbox: snapshot: %w", err)
	}
	if s.Size = info.Size(); !info.Mode().IsRegular() || s.Size > MaxState(c.task.Limits.Disk) {
		return fmt.Errorf("sandbox: snapshot: %s is not a file within its limits", s.Path)
	}
	c.post(s, nil)
	return nil
}

func (c *courier) post(s *Snapshot, progress *int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s != nil {
		c.drop()
		c.state = s
	}
	if progress != nil {
		c.progress = progress
	}
	if !c.busy {
		c.busy = true
		c.idle.Go(c.deliver)
	}
}

// drop removes the snapshot that waits. The caller holds mu.
func (c *courier) drop() {
	if c.state != nil {
		c.remove(c.state)
		c.state = nil
	}
}

func (c *courier) remove(s *Snapshot) {
	if err := os.Remove(s.Path); err != nil && !errors.Is(err, os.ErrNotExist) {
		c.log.Warn("sandbox: a snapshot stays until its task ends", "error", err)
	}
}

func (c *courier) deliver() {
	for {
		c.mu.Lock()
		s, progress := c.state, c.progress
		c.state, c.progress = nil, nil
		c.busy = s != nil || progress != nil
		c.mu.Unlock()
		switch {
		case s == nil && progress == nil:
			return
		case progress != nil && c.task.Progress != nil:
			c.task.Progress(*progress)
		}
		if s != nil {
			if c.ctx.Err() == nil {
				c.task.Checkpoint(c.ctx, *s)
			}
			c.remove(s)
		}
	}
}

// end waits until the callbacks have returned. Of a task that has completed, no snapshot is of use any more.
func (c *courier) end(completed bool) {
	if completed {
		c.cancel()
	}
	c.idle.Wait()
	c.cancel()
}
