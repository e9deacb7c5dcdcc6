package sim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/compute-mesh/mesh/protocol/insecure"
	"github.com/ipfs/go-cid"
)

// Peer is a simulated meshd.
type Peer struct {
	w      *World
	Index  int
	signer insecure.Signer

	up          bool
	life        int // grows with every crash: what was started before it is void
	incarnation uint64
	machine     *market.Machine
	journal     []market.Entry    // durable
	blocks      map[string][]byte // durable
	runs        map[market.RunID]bool
	queue       []market.Run
	slots       int
	wake        time.Duration
	announced   []protocol.Announcement
	busy        bool // inside step: effects are carried out by the outermost
}

// ID is the peer's.
func (p *Peer) ID() protocol.PeerID { return p.signer.ID() }

// Up tells whether the peer runs.
func (p *Peer) Up() bool { return p.up }

// View is what the peer knows of a job.
func (p *Peer) View(id protocol.JobID) (market.View, bool) { return p.machine.View(id) }

func (p *Peer) instant() market.Instant {
	return market.Instant{Mono: p.w.now, Unix: epoch + p.w.now.Milliseconds()}
}

// start makes the machine from the journal.
func (p *Peer) start() {
	cfg := market.DefaultConfig()
	cfg.Signer, cfg.Codec = p.signer, protocol.Codec{Verifier: insecure.Verifier{}}
	cfg.Mesh, cfg.Seed = "sim", p.w.cfg.Seed<<16+uint64(p.Index)
	p.incarnation = max(p.incarnation+1, uint64(epoch+p.w.now.Milliseconds()))
	cfg.Incarnation = p.incarnation
	cfg.Slots, cfg.Memory = p.w.cfg.Slots, 16<<30
	if p.w.cfg.Idle[p.Index] {
		cfg.Slots = 0
	}
	if p.w.cfg.Market != nil {
		p.w.cfg.Market(&cfg)
	}
	p.slots = cfg.Slots
	m, err := market.New(cfg, p.instant(), p.journal)
	if err != nil {
		p.w.fault("peer %d: start: %w", p.Index, err)
		return
	}
	p.machine, p.up, p.wake = m, true, 0
	p.runs, p.queue = map[market.RunID]bool{}, nil
	p.carry()
}

// meet connects the peer with all others that are up and in reach.
func (p *Peer) meet() {
	for _, q := range p.w.Peers {
		if q != p && q.up && p.up && !p.w.cut(p.Index, q.Index) {
			p.step(market.PeerUp{Peer: q.ID()})
			q.step(market.PeerUp{Peer: p.ID()})
		}
	}
}

// Crash stops the peer at once. lose is how many of the newest journal entries go with it.
func (p *Peer) Crash(lose int) {
	if !p.up {
		return
	}
	p.w.note("crash", uint64(p.Index), uint64(lose))
	p.up = false
	p.life++
	p.journal = p.journal[:max(0, len(p.journal)-lose)]
	for _, q := range p.w.Peers {
		if q.up && !p.w.cut(p.Index, q.Index) {
			q.step(market.PeerDown{Peer: p.ID()})
		}
	}
}

// Restart brings a crashed peer back.
func (p *Peer) Restart() {
	if p.up {
		return
	}
	p.w.note("restart", uint64(p.Index), 0)
	p.start()
	p.meet()
}

// Cancel orders the end of a job as its owner, from this peer.
func (p *Peer) Cancel(id protocol.JobID) {
	rec, err := protocol.SignRecord(ownerSigner(), &protocol.Control{Job: id, Sequence: 1, Verb: protocol.VerbCancel})
	if err != nil {
		p.w.fault("cancel: %w", err)
		return
	}
	p.step(market.Ordered{Record: rec})
}

// step gives the machine an input and carries out what comes of it.
func (p *Peer) step(in market.Input) {
	if !p.up {
		return
	}
	p.w.Steps++
	if err := p.machine.Step(p.instant(), in); err != nil && !errors.Is(err, market.ErrExpired) {
		p.w.fault("peer %d: %T: %w", p.Index, in, err)
	}
	if !p.busy {
		p.carry()
	}
}

// carry carries out effects until there are no more.
func (p *Peer) carry() {
	p.busy = true
	defer func() { p.busy = false }()
	for p.up {
		e := p.machine.Ready()
		p.alarm(e.Wake)
		if e.Empty() {
			return
		}
		p.journal = append(p.journal, e.Persist...)
		for _, b := range e.Blocks {
			p.blocks[b.CID.KeyString()] = b.Data
		}
		for _, m := range e.Send {
			p.send(m)
		}
		for _, a := range e.Announce {
			p.announce(a.Announcement)
		}
		for _, r := range e.Run {
			p.runs[r.ID] = true
			p.queue = append(p.queue, r)
		}
		for _, id := range e.Stop {
			p.stop(id)
		}
		p.fill()
		for _, f := range e.Fetch {
			p.fetch(f)
		}
		for _, q := range e.Probe {
			p.probe(q)
		}
		p.machine.Advance(e)
	}
}

// later does something with this life of the peer.
func (p *Peer) later(d time.Duration, do func()) {
	life := p.life
	p.w.After(d, func() {
		if p.up && p.life == life {
			do()
		}
	})
}

func (p *Peer) alarm(at time.Duration) {
	if at == 0 || at == p.wake {
		return
	}
	p.wake = at
	p.later(at-p.w.now, func() {
		if p.wake == at {
			p.wake = 0
			p.step(market.Tick{})
		}
	})
}

func (p *Peer) send(m market.Envelope) {
	w := p.w
	q := w.byID[m.To]
	kind := fmt.Sprintf("%T", m.Message)
	w.Messages[kind]++
	w.note(kind, uint64(p.Index), uint64(q.Index))
	times := 1
	if w.chance(w.cfg.Loss) {
		times = 0
	} else if w.chance(w.cfg.Duplicate) {
		times = 2
	}
	for range times {
		w.After(w.delay(), func() {
			if q.up && !w.cut(p.Index, q.Index) {
				q.step(market.Received{From: p.ID(), Message: m.Message})
			}
		})
	}
}

func (p *Peer) announce(a protocol.Announcement) {
	a, err := protocol.SignAnnouncement(p.signer, a)
	if err != nil {
		p.w.fault("announce: %w", err)
		return
	}
	p.announced = append(p.announced, a)
	p.later(0, func() { p.step(market.Announced{Announcement: a}) })
	if p.w.cfg.NoGossip {
		return
	}
	for _, q := range p.w.Peers {
		if q != p && !p.w.chance(p.w.cfg.Loss) {
			p.w.After(2*p.w.delay(), func() {
				if q.up && !p.w.cut(p.Index, q.Index) {
					q.step(market.Announced{Announcement: a})
				}
			})
		}
	}
}

// fill starts queued runs while slots are free.
func (p *Peer) fill() {
	for len(p.queue) > 0 && len(p.runs)-len(p.queue) < p.slots {
		r := p.queue[0]
		p.queue = p.queue[1:]
		p.w.Started[Task{r.Job.ID, r.Stage, r.Index}]++
		p.w.note("run", uint64(p.Index), uint64(r.Index))
		p.work(r, p.progress(r.State))
	}
}

// work runs a task from a progress on, up to its next checkpoint or its end.
func (p *Peer) work(r market.Run, done time.Duration) {
	total := p.nominal(r)
	next := total
	if p.w.cfg.Check > 0 {
		next = min(total, done+p.w.cfg.Check)
	}
	p.later(p.slower(next-done), func() {
		if !p.runs[r.ID] {
			return
		}
		p.w.Worked += next - done
		if next == total {
			p.finish(r)
			return
		}
		c, data := state(r, next)
		p.blocks[c.KeyString()] = data
		p.step(market.Checkpointed{ID: r.ID, State: c})
		p.work(r, next)
	})
}

// nominal is how long a task takes at nominal speed.
func (p *Peer) nominal(r market.Run) time.Duration {
	if p.w.cfg.Task != nil {
		return p.w.cfg.Task(r.Stage, r.Index)
	}
	return 100 * time.Millisecond
}

func (p *Peer) slower(d time.Duration) time.Duration {
	if p.w.cfg.Speed != nil {
		return d * 1000 / time.Duration(p.w.cfg.Speed(p.Index))
	}
	return d
}

func (p *Peer) duration(r market.Run) time.Duration { return p.slower(p.nominal(r)) }

// state is a checkpoint's file: how far the task is.
func state(r market.Run, done time.Duration) (cid.Cid, []byte) {
	data := fmt.Appendf(nil, "%s %d %d %d", r.Job.ID, r.Stage, r.Index, done)
	return Program(string(data)).Root, binary.BigEndian.AppendUint64(nil, uint64(done))
}

// progress is what a checkpoint holds; a state that nobody has is the start.
func (p *Peer) progress(c cid.Cid) time.Duration {
	if !c.Defined() {
		return 0
	}
	var all []protocol.PeerID
	for _, q := range p.w.Peers {
		all = append(all, q.ID())
	}
	data, err := p.bring(c, all)
	if err != nil {
		return 0
	}
	return time.Duration(binary.BigEndian.Uint64(data))
}

func (p *Peer) finish(r market.Run) {
	if !p.runs[r.ID] {
		return
	}
	delete(p.runs, r.ID)
	end := market.Ended{ID: r.ID, Outcome: market.OutcomeDone, Wall: p.duration(r), Result: Result(r.Stage, r.Index)}
	if p.w.cfg.Fail != nil && p.w.cfg.Fail(p.Index, r.Stage, r.Index) {
		end = market.Ended{ID: r.ID, Outcome: market.OutcomeFailed, Reason: protocol.ReasonExit, Exit: 3, Detail: "as told"}
	}
	if p.w.cfg.Unable != nil && p.w.cfg.Unable(p.Index, r.Stage, r.Index) {
		end = market.Ended{ID: r.ID, Outcome: market.OutcomeReleased, Detail: "no room on the disk"}
	}
	p.step(end)
	p.fill()
}

func (p *Peer) stop(id market.RunID) {
	if !p.runs[id] {
		return
	}
	delete(p.runs, id)
	p.queue = slices.DeleteFunc(p.queue, func(r market.Run) bool { return r.ID == id })
	p.later(0, func() { p.step(market.Ended{ID: id, Outcome: market.OutcomeStopped}) })
}

// Result is what a task of the simulated program gives.
func Result(stage protocol.StageIndex, t protocol.TaskIndex) protocol.Result {
	text := fmt.Appendf(nil, "stage %d task %d\n", stage, t)
	return protocol.Result{Stdout: protocol.Output{Size: uint64(len(text)), Inline: text}}
}

var errNowhere = errors.New("sim: nobody has it")

func (p *Peer) fetch(f market.Fetch) {
	p.w.note("fetch", uint64(p.Index), uint64(f.Kind))
	d := 2 * p.w.delay()
	switch f.Kind {
	case market.FetchManifest, market.FetchJob:
		p.later(d, func() {
			got := market.Fetched{ID: f.ID, Job: p.w.jobs[f.Job]}
			if !slices.ContainsFunc(f.From, p.reaches) {
				got.Err = errNowhere
			}
			p.step(got)
		})
	default:
		if f.Root.Defined() && p.blocks[f.Root.KeyString()] != nil {
			d = 0
		}
		p.later(d, func() {
			data, err := p.bring(f.Root, f.From)
			for _, root := range f.Roots {
				if err == nil {
					_, err = p.bring(root, f.From)
				}
			}
			p.step(market.Fetched{ID: f.ID, Err: err, Data: data})
		})
	}
}

// bring copies a block from whoever has it.
func (p *Peer) bring(c cid.Cid, from []protocol.PeerID) ([]byte, error) {
	if !c.Defined() {
		return nil, nil
	}
	k := c.KeyString()
	if data := p.blocks[k]; data != nil {
		return data, nil
	}
	for _, id := range from {
		if q := p.w.byID[id]; p.reaches(id) && q.blocks[k] != nil {
			p.blocks[k] = q.blocks[k]
			return p.blocks[k], nil
		}
	}
	return nil, errNowhere
}

func (p *Peer) reaches(id protocol.PeerID) bool {
	q := p.w.byID[id]
	return q != nil && q.up && !p.w.cut(p.Index, q.Index)
}

func (p *Peer) probe(id protocol.PeerID) {
	d := 2 * p.w.delay()
	if !p.reaches(id) {
		d = time.Second
	}
	p.later(d, func() { p.step(market.Probed{Peer: id, Alive: p.reaches(id)}) })
}

// Results reads the results of a stage from the peer's own blocks.
func (p *Peer) Results(id protocol.JobID, stage protocol.StageIndex) ([]protocol.Result, error) {
	v, ok := p.machine.View(id)
	if !ok || !v.Stages[stage].Top.Defined() {
		return nil, fmt.Errorf("sim: stage %d has no seal at peer %d", stage, p.Index)
	}
	get := func(c cid.Cid) ([]byte, error) {
		if data := p.blocks[c.KeyString()]; data != nil {
			return data, nil
		}
		for _, q := range p.w.Peers {
			if data := q.blocks[c.KeyString()]; data != nil {
				return data, nil
			}
		}
		return nil, errNowhere
	}
	n := v.Stages[stage].Tasks
	var list []protocol.Result
	for r, err := range job.ReadResults(v.Stages[stage].Top, n, get).All(protocol.Range{Hi: protocol.TaskIndex(n)}) {
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, nil
}
