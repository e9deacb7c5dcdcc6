package sandbox

import (
	"context"
	"slices"
	"time"
)

// take gives an idle child, waits for one that Warm is starting, or starts one.
func (p *Pool) take(ctx context.Context) (*process, error) {
	for {
		c, warming := p.pick()
		if c != nil {
			return c, nil
		}
		if warming == nil {
			return p.spawner.start(ctx)
		}
		select {
		case <-warming:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// pick takes an idle child, if there is one, and says whether one is being started.
func (p *Pool) pick() (*process, chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.idle) > 0 {
		c := p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		if c.alive() {
			return c, nil
		}
		_ = c.out.Close()
	}
	return nil, p.warming
}

// giveBack puts a child among the idle ones.
func (p *Pool) giveBack(c *process) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.since = time.Now()
	p.idle = append(p.idle, c)
	p.watch(p.cfg.IdleTimeout)
}

// watch sees to it that children that stay idle are ended. The caller holds mu.
func (p *Pool) watch(after time.Duration) {
	if p.cfg.IdleTimeout > 0 && p.watcher == nil && !p.closed {
		p.watcher = time.AfterFunc(after, p.endIdle)
	}
}

// endIdle ends the children that have been idle for too long: those at the front, since they are taken from the end.
func (p *Pool) endIdle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watcher = nil
	if p.closed {
		return
	}
	now, old := time.Now(), 0
	for old < len(p.idle) && now.Sub(p.idle[old].since) >= p.cfg.IdleTimeout {
		p.bury(p.idle[old])
		old++
	}
	p.idle = slices.Delete(p.idle, 0, old)
	if len(p.idle) > 0 {
		p.watch(p.cfg.IdleTimeout - now.Sub(p.idle[0].since))
	}
}

// Warm starts a child in the background if none is idle and a slot is free, so that a task that is about to come finds it
// ready. It does not wait, and is not needed.
func (p *Pool) Warm() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.warming != nil || len(p.idle) > 0 || len(p.slots) == cap(p.slots) {
		return
	}
	warming := make(chan struct{})
	p.warming = warming
	p.users.Add(1)
	go func() {
		defer p.users.Done()
		c, err := p.spawner.start(p.closing)
		if err == nil {
			p.giveBack(c)
		} else {
			p.cfg.Log.Debug("sandbox: no child ahead of its task", "error", err) // the task will say so
		}
		p.mu.Lock()
		p.warming = nil
		p.mu.Unlock()
		close(warming)
	}()
}
