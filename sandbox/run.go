package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/compute-mesh/mesh/sandbox/wasi"
)

// Run runs a task, in one slot, and waits until it has ended. Whatever the program does is told by the Result; an error
// is no fault of the program: the task is not valid, its state cannot be restored (ErrState), the host failed (a file is
// missing, its disk is full), the context ended (the error wraps its cause; the child is killed and Run returns as soon as
// the task's callbacks have), or the pool was closed.
func (p *Pool) Run(ctx context.Context, t Task) (Result, error) {
	if err := errors.Join(t.Validate(), p.mayLog(t.Log)); err != nil {
		return Result{}, err
	}
	ctx, leave, err := p.occupy(ctx)
	if err != nil {
		return Result{}, err
	}
	defer leave()
	r, err := p.attempt(ctx, t)
	if err != nil {
		return Result{}, fmt.Errorf("sandbox: run: %w", err)
	}
	return r, nil
}

// occupy begins a call that needs a slot, and waits for one. leave must be called.
func (p *Pool) occupy(ctx context.Context) (_ context.Context, leave func(), err error) {
	ctx, left, err := p.enter(ctx)
	if err != nil {
		return nil, nil, err
	}
	select {
	case p.slots <- struct{}{}:
		return ctx, func() { <-p.slots; left() }, nil
	case <-ctx.Done():
		defer left()
		return nil, nil, fmt.Errorf("sandbox: run: %w", context.Cause(ctx))
	}
}

// request is what a child is asked for a task, with a scratch directory of its own.
func (p *Pool) request(t *Task) *request {
	q := &request{Task: *t, Scratch: p.scratch()}
	if t.Checkpoint != nil {
		q.Every = p.cfg.CheckpointEvery
	}
	return q
}

// attempts is how often a run is begun when a child proves to have lost the program's code, or to have died while idle.
// More than twice would be a fault of the host.
const attempts = 3

func (p *Pool) attempt(ctx context.Context, t Task) (Result, error) {
	last := errors.New("no attempt")
	for range attempts {
		err := p.prepare(ctx, t.Program)
		if errors.Is(err, ErrProgram) {
			return Result{Class: ClassProgram, Reason: err.Error()}, nil
		}
		if err != nil {
			return Result{}, err
		}
		c, err := p.take(ctx)
		if err != nil {
			return Result{}, err
		}
		r, again, err := p.runIn(ctx, c, t)
		if !again {
			return r, err
		}
		last = err
	}
	return Result{}, last
}

// runIn runs a task in a child, and puts the child back or ends it. The task has not been started if again is set.
func (p *Pool) runIn(ctx context.Context, c *process, t Task) (_ Result, again bool, _ error) {
	q := p.request(&t)
	scratch := q.Scratch
	courier := newCourier(ctx, &t, scratch, p.cfg.Log)
	begin := time.Now()
	a, body, err := c.exchange(ctx, q, t.Limits.Timeout+killGrace, courier.take)
	wall := time.Since(begin)
	courier.end(err == nil && a.Class.Completed())
	if err != nil {
		var lost writeError
		if errors.As(err, &lost) {
			p.bury(c, scratch)
			return Result{}, true, err
		}
		return p.failed(c, scratch, t, wall, err)
	}
	p.giveBack(c)
	if a.Uncompiled {
		p.forget(t.Program.ID, nil)
		return Result{}, true, errors.New(a.Reason)
	}
	if a.HostError != "" {
		return Result{}, false, errors.Join(errors.New(a.HostError), os.RemoveAll(scratch))
	}
	if a.BadState != "" {
		return Result{}, false, errors.Join(fmt.Errorf("%w: %s", ErrState, a.BadState), os.RemoveAll(scratch))
	}
	r, err := received(a, body, t, scratch)
	if err != nil {
		return Result{}, false, errors.Join(err, os.RemoveAll(scratch))
	}
	r.Wall = wall
	return r, false, nil
}

// failed makes the result of a task whose child did not answer.
func (p *Pool) failed(c *process, scratch string, t Task, wall time.Duration, err error) (Result, bool, error) {
	defer p.bury(c, scratch)
	r := Result{Wall: wall}
	switch {
	case errors.Is(err, errTimeout):
		r.Class, r.Reason = ClassTimeout, fmt.Sprintf("the time limit of %v was passed", t.Limits.Timeout)
	case errors.Is(err, errCrashed):
		r.Class, r.Reason = ClassEngine, "the engine crashed: "+c.epitaph()
		if c.outOfMemory() {
			r.Class, r.Reason = ClassMemory, "the host had no more memory for the task: "+c.epitaph()
		}
	default:
		return Result{}, false, err
	}
	if t.Log != "" {
		if info, err := os.Stat(t.Log); err == nil {
			r.Log = Content{Size: info.Size(), Path: t.Log}
		}
	}
	return r, false, nil
}

// received makes a result from the child's answer, which is not trusted: sizes must fit, files must be regular ones in
// the task's own scratch directory.
func received(a response, body []byte, t Task, scratch string) (Result, error) {
	r := Result{Class: a.Class, Exit: a.Exit, Reason: a.Reason, LogDropped: a.LogDropped, CPU: a.CPU, MaxMemory: a.MaxMemory}
	if len(a.Out) > MaxOutFiles {
		return r, fmt.Errorf("sandbox: answer with %d files", len(a.Out))
	}
	u := unpacker{body: body, scratch: scratch}
	if a.Log.File != "" && t.Log != "" {
		r.Log = Content{Size: a.Log.Size, Path: t.Log}
	} else {
		r.Log = u.content(a.Log)
	}
	r.Stdout = u.content(a.Stdout)
	for _, o := range a.Out {
		if err := wasi.ValidName(o.Name); err != nil {
			return r, fmt.Errorf("sandbox: answer with an output whose %w", err)
		}
		r.Out = append(r.Out, OutFile{Name: o.Name, Content: u.content(o.Piece)})
	}
	switch {
	case u.files > 0:
		r.dir = scratch
	case a.Scratched:
		u.err = errors.Join(u.err, os.RemoveAll(scratch))
	}
	return r, u.err
}

type unpacker struct {
	body    []byte
	scratch string
	files   int
	err     error
}

func (u *unpacker) content(p piece) Content {
	if p.File == "" {
		if p.Size < 0 || p.Size > int64(len(u.body)) {
			u.err = errors.New("sandbox: answer is shorter than it says")
			return Content{}
		}
		c := Content{Size: p.Size, Data: u.body[:p.Size:p.Size]}
		u.body = u.body[p.Size:]
		return c
	}
	u.files++
	path := filepath.Join(u.scratch, filepath.Base(p.File))
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		u.err = errors.Join(u.err, err)
	case !info.Mode().IsRegular() || info.Size() != p.Size:
		u.err = errors.Join(u.err, fmt.Errorf("sandbox: %s is not a file of %d bytes", path, p.Size))
	}
	return Content{Size: p.Size, Path: path}
}
