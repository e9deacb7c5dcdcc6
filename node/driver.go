package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

const (
	// inputQueue bounds the inputs that wait for the machine: some 10 ms of its work. Who brings one then waits, and so
	// slows down the peer, task or call that it came from.
	inputQueue = 1024
	// inputBurst bounds the inputs between two looks at what the machine owes: so that one commit serves many, and no
	// answer waits for more than these.
	inputBurst = 256
	// callQueue bounds the questions that wait for the machine: they come from the API, a few at a time.
	callQueue = 64
	// batchBytes bounds what may wait for the committer. Above it no input is taken: a disk that is slower than the
	// network slows the network down.
	batchBytes = 32 << 20
	// pulse is the longest that the loop sleeps: a gap in time shows as a sleep longer than pulse and gapAfter.
	pulse = time.Second
	// gapAfter is how late the loop may be before it takes the machine to have been stopped or asleep: longer than a
	// busy machine's worst pauses.
	gapAfter = 2 * time.Second
)

// errClosing ends what waits for a node that is closing.
var errClosing = errors.New("node: this meshd is shutting down")

// machine is what the driver drives: *market.Machine.
type machine interface {
	Step(at market.Instant, in market.Input) error
	Ready() market.Effects
	Advance(market.Effects)
	View(protocol.JobID) (market.View, bool)
	Jobs() []protocol.JobID
	Announced() []protocol.Announcement
	Records(protocol.JobID) []protocol.Record
	Entries() []market.Entry
	Pages(protocol.JobID, protocol.StageIndex, protocol.TaskIndex) []cid.Cid
	Busy() bool
	Handed() int
}

// outlets are what effects go to. Their methods are called on the loop, and must not wait for anything that waits for
// the loop; those of commit are called on the committer.
type outlets struct {
	run      func([]market.Run)
	prefetch func([]market.Run)
	stop     func([]market.RunID)
	fetch    func([]market.Fetch)
	probe    func([]protocol.PeerID)
	expect   func([]job.Block) // blocks that a commit will store, to be readable at once
	commit   committer
	compact  func() bool // whether the next commit should rewrite the journal
}

// step is an input, and who wants to know when what followed from it is durable.
type step struct {
	input market.Input
	done  chan<- error // with room for one; nil: nobody
}

// driver is the one owner of the machine.
type driver struct {
	m     machine
	out   outlets
	clock clock
	log   *slog.Logger

	steps chan step
	calls chan func(machine)
	ctx   context.Context // of the loop's life
	stop  context.CancelCauseFunc
	ended chan struct{} // loop and committer are done

	started atomic.Bool
	gaps    atomic.Uint64

	// Of the loop alone.
	wake    time.Duration // Mono of the next Tick; 0: none
	pending *batch        // what the committer has not been given yet
}

func newDriver(m machine, out outlets, c clock, log *slog.Logger) *driver {
	d := &driver{
		m: m, out: out, clock: c, log: log,
		steps: make(chan step, inputQueue), calls: make(chan func(machine), callQueue),
		ended: make(chan struct{}), pending: new(batch),
	}
	d.ctx, d.stop = context.WithCancelCause(context.Background())
	return d
}

// start begins the loop. failed is called, once, when a commit fails: the node must then end.
func (d *driver) start(failed func(error)) {
	d.started.Store(true)
	work := make(chan *batch)
	committed := make(chan struct{})
	go func() {
		defer close(committed)
		for b := range work {
			if err := d.out.commit.do(b); err != nil {
				b.answer(err)
				d.stop(err)
				failed(err)
				break
			}
			b.answer(nil)
		}
		for b := range work { // after a failure nothing more leaves
			b.answer(errClosing)
		}
	}()
	go func() {
		defer close(d.ended)
		d.loop(work)
		close(work)
		<-committed
	}()
}

// close ends the loop, after what the machine owes has been committed, and returns when it has ended.
func (d *driver) close() {
	d.stop(errClosing)
	if d.started.Load() {
		<-d.ended
	}
}

// post brings an input to the machine. It waits while the queue is full, and gives up when the driver ends.
func (d *driver) post(in market.Input) {
	select {
	case d.steps <- step{input: in}:
	case <-d.ctx.Done():
	}
}

// settle brings an input to the machine and returns when it, and all that followed from it, is durable and on its way;
// or the machine's error, where it refuses the input.
func (d *driver) settle(ctx context.Context, in market.Input) error {
	done := make(chan error, 1)
	select {
	case d.steps <- step{in, done}:
	case <-d.ctx.Done():
		return errClosing
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-d.ended:
		select {
		case err := <-done:
			return err
		default:
			return errClosing
		}
	}
}

// ask runs f on the loop, where the machine may be read, and returns when it has run.
func (d *driver) ask(ctx context.Context, f func(machine)) error {
	done := make(chan struct{})
	select {
	case d.calls <- func(m machine) { defer close(done); f(m) }:
	case <-d.ctx.Done():
		return errClosing
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-d.ended:
		select {
		case <-done:
			return nil
		default:
			return errClosing
		}
	}
}

// loop steps inputs and hands out effects until the driver is stopped.
func (d *driver) loop(work chan<- *batch) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	last := d.clock.now()
	for {
		steps, next := d.steps, work
		if d.pending.bytes > batchBytes {
			steps = nil
		}
		if d.pending.empty() {
			next = nil
		} else if d.pending.snapshot == nil && d.out.compact() {
			d.pending.snapshot = d.m.Entries()
		}
		if d.pending.snapshot != nil { // it is of this moment: the batch leaves before anything else happens
			steps = nil
		}
		timer.Reset(d.sleep(d.clock.now().Mono))
		var first step
		var call func(machine)
		select {
		case first = <-steps:
		case call = <-d.calls:
			if d.pending.snapshot != nil {
				call(d.m)
				continue
			}
		case next <- d.pending:
			d.pending = new(batch)
			continue
		case <-timer.C:
			if d.pending.snapshot != nil {
				continue
			}
		case <-d.ctx.Done():
			if !d.pending.empty() {
				work <- d.pending // the committer takes it, or has failed and drains
			}
			return
		}
		at := d.clock.now()
		if d.clock.gap(last, at) {
			d.gaps.Add(1)
			d.log.Info("this machine was stopped or asleep; catching up with the mesh", "for", at.Mono-last.Mono)
			d.step(at, step{input: market.Gap{}})
		}
		last = at
		if call != nil {
			call(d.m)
			continue
		}
		d.burst(at, first)
		d.collect()
	}
}

// sleep is how long the loop may wait: until the machine's next Tick, at most a pulse.
func (d *driver) sleep(now time.Duration) time.Duration {
	if d.wake == 0 {
		return pulse
	}
	return min(max(d.wake-now, 0), pulse)
}

// burst steps an input and what waits behind it, and a Tick when it is due: after the inputs, so that the beat of a
// peer that has arrived is not taken for missing.
func (d *driver) burst(at market.Instant, s step) {
	for range inputBurst {
		if s.input == nil {
			break
		}
		d.step(at, s)
		select {
		case s = <-d.steps:
		default:
			s = step{}
		}
	}
	if s.input != nil {
		d.step(at, s)
	}
	if d.wake != 0 && at.Mono >= d.wake {
		d.wake = 0
		d.step(at, step{input: market.Tick{}})
	}
}

func (d *driver) step(at market.Instant, s step) {
	err := d.m.Step(at, s.input)
	switch {
	case s.done == nil && err != nil:
		d.log.Debug("input refused", "input", fmt.Sprintf("%T", s.input), "error", err)
	case s.done != nil && err != nil:
		s.done <- err
	case s.done != nil:
		d.pending.waiting = append(d.pending.waiting, s.done)
	}
}

// collect takes what the machine owes: what need not wait is done now, the rest joins the pending batch. The machine is
// told that all is done, since from here on order and durability are kept, or the node ends.
func (d *driver) collect() {
	e := d.m.Ready()
	d.wake = e.Wake
	if !e.Empty() {
		d.dispatch(e)
	}
	d.m.Advance(e)
}

func (d *driver) dispatch(e market.Effects) {
	if len(e.Blocks) > 0 {
		d.out.expect(e.Blocks)
	}
	if len(e.Stop) > 0 {
		d.out.stop(e.Stop)
	}
	if len(e.Run) > 0 {
		d.out.run(e.Run)
	}
	if len(e.Prefetch) > 0 {
		d.out.prefetch(e.Prefetch)
	}
	if len(e.Fetch) > 0 {
		d.out.fetch(e.Fetch)
	}
	if len(e.Probe) > 0 {
		d.out.probe(e.Probe)
	}
	d.pending.add(e)
}

// clock tells the time as the machine knows it.
type clock struct{ start time.Time }

func newClock() clock { return clock{time.Now()} }

// now is the monotonic time since the start and the wall clock.
func (c clock) now() market.Instant {
	t := time.Now()
	return market.Instant{Mono: t.Sub(c.start), Unix: t.UnixMilli()}
}

// gap tells whether the machine was stopped or asleep between two turns of the loop, which it meant to be at most a
// pulse apart: either it is late, or (where the monotonic clock stands still in sleep) the wall clock has run ahead.
func (c clock) gap(from, to market.Instant) bool {
	mono := to.Mono - from.Mono
	wall := time.Duration(to.Unix-from.Unix) * time.Millisecond
	return mono > pulse+gapAfter || wall-mono > gapAfter
}
