package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/sandbox"
	"github.com/ipfs/go-cid"
)

// autoState is the time between the checkpoints of a program that writes to /state and never asks for one: what a death costs
// it, beside the time to notice.
const autoState = 10 * time.Second

// checkpointCounters count what became of checkpoints.
type checkpointCounters struct {
	stored   atomic.Uint64 // given to the machine
	unstored atomic.Uint64 // not stored: the disk or the quota is full
	restored atomic.Uint64 // runs that went on from one
	useless  atomic.Uint64 // that could not be had, or not be restored
}

// resume brings the newest checkpoint that a run can go on from: one that can't be had or can't be restored costs the work since the
// one before it. Without any the run begins at the start, which loses time and nothing else.
func (r *runner) resume(t *task, in *prepared) {
	in.task.State = ""
	for len(t.States) > 0 && t.ctx.Err() == nil {
		path, err := r.prep.state(t.ctx, &t.Run, t.States[0], in)
		if err == nil {
			err = stateFits(path, in.task.Limits.Disk)
		}
		if err == nil {
			in.task.State = path
			return
		}
		r.forget(t, err)
	}
}

// stateFits refuses what the sandbox would only find too large once it has read it.
func stateFits(path string, disk int64) error {
	info, err := os.Stat(path)
	if err == nil && info.Size() > sandbox.MaxState(disk) {
		err = sandbox.ErrState
	}
	return err
}

// forget gives up the checkpoint that a run was to go on from.
func (r *runner) forget(t *task, err error) {
	if t.ctx.Err() != nil {
		return
	}
	useless := t.States[0]
	t.States = t.States[1:]
	r.checkpoints.useless.Add(1)
	what := "a task begins at its start, not at its checkpoint"
	if len(t.States) > 0 {
		what = "a task does not go on from its newest checkpoint; the one before it is tried"
	}
	r.log.Warn(what, "job", t.Job.ID, "stage", t.Stage, "task", t.Index, "chunk", useless, "error", err)
}

// equip gives a task a log, and what is to be done with its progress and its checkpoints. The one that it goes on from is the
// last that the machine has.
func (r *runner) equip(t *task) {
	in := &t.input.task
	if in.Log == "" {
		in.Log = r.prep.files.log()
	}
	r.mu.Lock()
	t.log = in.Log
	r.mu.Unlock()
	last := cid.Undef
	if in.State != "" {
		last = t.States[0]
	}
	in.Auto = autoState
	in.Progress = func(permille int) { t.told.Store(int64(permille) + 1) }
	in.Checkpoint = func(ctx context.Context, s sandbox.Snapshot) { last = r.checkpoint(ctx, t, s, last) }
}

// sandboxed runs a task's program, from the newest checkpoint that is of use, and stores the ones that it makes.
func (r *runner) sandboxed(t *task) (sandbox.Result, error) {
	in := &t.input.task
	for in.State != "" {
		r.equip(t)
		result, err := r.pool.Run(t.ctx, *in)
		if t.ctx.Err() != nil || err != nil && !errors.Is(err, sandbox.ErrState) {
			return result, err
		}
		if err == nil {
			if err = r.misled(t, &result); err == nil {
				r.checkpoints.restored.Add(1)
				return result, nil
			}
			_ = result.Close() // what can't be removed now goes with the next start
			_ = os.Remove(in.Log)
		}
		r.forget(t, err)
		r.resume(t, t.input)
	}
	r.equip(t)
	return r.pool.Run(t.ctx, *in)
}

// misled is an error where a run that went on from a checkpoint has failed: the checkpoint was made elsewhere, or between two
// calls of a program that knows nothing of it, so only what fails from the start is the program's fault. A run that has taken
// all of its time is given no more.
func (r *runner) misled(t *task, result *sandbox.Result) error {
	if result.Class == sandbox.ClassTimeout || result.Class.Completed() && accepted(&t.Job.Manifest.Stages[t.Stage], result.Exit) {
		return nil
	}
	return fmt.Errorf("node: it failed from there: %s: exit status %d: %s", result.Class, result.Exit, detail(result.Reason))
}

// checkpoint stores a snapshot for its job and tells the machine, unless it is the one that the machine has: it lets go of
// that when it is given the next. The newest that was given is returned. One that can't be stored is no fault of the
// task's: it goes on, and dies for more.
func (r *runner) checkpoint(ctx context.Context, t *task, s sandbox.Snapshot, last cid.Cid) cid.Cid {
	keep := outputs{r: r, job: t.Job.ID}
	out, err := keep.file(ctx, sandbox.Content{Size: s.Size, Path: s.Path})
	switch {
	case err == nil && out.Root == last:
		return last
	case err == nil:
		r.checkpoints.stored.Add(1)
		r.post(market.Checkpointed{ID: t.ID, State: out.Root})
		return out.Root
	case ctx.Err() == nil:
		r.checkpoints.unstored.Add(1)
		r.warn(ctx, "a checkpoint could not be stored", t, err)
	}
	return last
}
