package sandbox

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// maxTogether is how many bytes of requests a child is given at once: a pipe takes that much on every system before its reader
// has taken any, so the pool never waits for a child that waits for it.
const maxTogether = 16 << 10

// patience is how long a task among others may take: a child has to wait for a third of a second, at times, where processors are
// busy. One that takes longer is begun again on its own, which costs it this much, and those behind it do not wait for it.
const patience = time.Second

// RunTogether runs tasks of one program as Run does, one after another in one slot, and hands their requests to a child at once:
// for tasks that take less than it costs to wake a process. It gives their results to ended, in order, and the number of tasks
// that have ended. Those after them have to be run by Run, whose Log files are to be removed first: there was no room for their
// requests, or something went wrong (err) and it takes a run on its own to tell which of them was to blame, if any. What they may have
// done so far is gone.
//
// Before it waits for a task, RunTogether calls waits with it: it is the one that runs then, or one that ended less than holdFor
// ago. Both are called on the caller's goroutine while the child goes on.
func (p *Pool) RunTogether(ctx context.Context, tasks []Task, waits func(i int), ended func(i int, r Result)) (n int, err error) {
	b := batch{p: p, tasks: tasks}
	for i := range tasks {
		if err := errors.Join(tasks[i].Validate(), p.mayLog(tasks[i].Log)); err != nil {
			return 0, err
		}
		if tasks[i].Program != tasks[0].Program {
			return 0, errors.New("sandbox: tasks of several programs together")
		}
	}
	if err := b.write(); err != nil || len(b.scratch) == 0 {
		return 0, err
	}
	ctx, leave, err := p.occupy(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	if err := p.prepare(ctx, tasks[0].Program); err != nil {
		return 0, err
	}
	c, err := p.take(ctx)
	if err != nil {
		return 0, err
	}
	err = c.during(ctx, func() (err error) {
		n, err = b.run(ctx, c, waits, ended)
		return err
	})
	if err != nil {
		p.bury(c, b.scratch[n:]...)
		return n, fmt.Errorf("sandbox: run: %w", err)
	}
	p.giveBack(c)
	return n, nil
}

// batch is tasks on their way through a child.
type batch struct {
	p       *Pool
	tasks   []Task
	scratch []string // of those whose requests are written out
	frames  []byte
}

// write writes out the requests that there is room for.
func (b *batch) write() error {
	for i := range b.tasks {
		q := b.p.request(&b.tasks[i])
		frames, err := appendFrame(b.frames, q, nil)
		if err != nil {
			return err
		}
		if len(frames) > maxTogether {
			return nil
		}
		b.frames, b.scratch = frames, append(b.scratch, q.Scratch)
	}
	return nil
}

func (b *batch) run(ctx context.Context, c *process, waits func(i int), ended func(i int, r Result)) (n int, err error) {
	if err := c.ask(b.frames, time.Now().Add(patience)); err != nil {
		return 0, err
	}
	for n = range b.scratch {
		r, err := b.next(ctx, c, n, waits)
		if err != nil {
			return n, err
		}
		ended(n, r)
	}
	return len(b.scratch), nil
}

// next is the result of task i. What a task on its own would be told of as no error is one here.
func (b *batch) next(ctx context.Context, c *process, i int, waits func(i int)) (Result, error) {
	t := &b.tasks[i]
	if c.reader.Buffered() == 0 {
		waits(i)
	}
	var letters *courier // hardly any task has some
	limit := min(t.Limits.Timeout+killGrace+holdFor, patience)
	a, body, err := c.answer(time.Now().Add(limit), func(n notice) error {
		if letters == nil {
			letters = newCourier(ctx, t, b.scratch[i], b.p.cfg.Log)
		}
		return letters.take(n)
	})
	if letters != nil {
		letters.end(err == nil && a.Class.Completed())
	}
	switch {
	case err != nil:
		return Result{}, err
	case a.Uncompiled:
		b.p.forget(t.Program.ID, nil)
		return Result{}, errors.New(a.Reason)
	case a.HostError != "" || a.BadState != "":
		return Result{}, errors.New(a.HostError + a.BadState)
	}
	r, err := received(a, body, *t, b.scratch[i])
	r.Wall = max(0, min(a.Wall, t.Limits.Timeout))
	return r, err
}
