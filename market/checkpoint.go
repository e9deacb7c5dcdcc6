package market

import (
	"slices"
	"time"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// progress is a checkpoint that is not recorded yet: its state is on its way to keepers, or
// waits for its turn.
type progress struct {
	state cid.Cid
	since time.Duration            // when keepers are asked to store it
	begun bool                     // they were
	by    map[protocol.PeerID]bool // keepers that have it, durable
	next  cid.Cid                  // a newer one, which waits for this to be recorded; cid.Undef: none
}

// maxProgress bounds the checkpoints on their way: the newest of each running task.
const maxProgress = MaxSlots

// checkpointed has the state of a running task stored with the two keepers that judge
// this peer: they outlive it, and whoever adopts the task asks them. The record is
// written once one of them has it and the other has, or had time to. A task has one
// checkpoint a beat: of those that a program takes faster the newest goes when it is due.
func (m *Machine) checkpointed(in Checkpointed) {
	r := m.runs[in.ID]
	if r == nil {
		return // its run has ended, and the driver keeps nothing of it
	}
	sh := r.sh
	s := sh.s
	if r.stopped || !s.running() || sh.running[r.task] != r || sh.copies.borrowed[r.task] != "" || len(sh.progress) >= maxProgress {
		s.dropStates(in.State)
		return
	}
	r.resumed = false
	p := sh.progress[r.task]
	if p == nil {
		sh.addProgress(r, in.State)
		return
	}
	newest := &p.state // of those that keepers have not been asked to store
	if p.begun {
		newest = &p.next
	}
	old := *newest
	*newest = in.State
	s.dropStates(old)
}

// addProgress takes up a checkpoint of a run that has none on its way.
func (sh *share) addProgress(r *run, state cid.Cid) {
	sh.progress[r.task] = &progress{state: state, since: max(sh.s.m.now.Mono, r.nextCheck), by: map[protocol.PeerID]bool{}}
	sh.beginProgress(r)
}

// beginProgress has the state of a run's checkpoint stored once its time has come.
func (sh *share) beginProgress(r *run) {
	s, m, p := sh.s, sh.s.m, sh.progress[r.task]
	if m.now.Mono < p.since {
		s.wakeAt(p.since)
		return
	}
	p.begun, r.nextCheck = true, m.now.Mono+m.cfg.Beat
	m.out.Sync = true
	for _, k := range s.links() {
		m.send(k, &protocol.Replicate{Job: s.id, Root: p.state})
	}
	s.wakeAt(m.now.Mono + m.cfg.Beat)
	sh.settleProgress(r.task)
}

// settleProgress writes the Checkpoint record of a task once its state is safe.
func (sh *share) settleProgress(t protocol.TaskIndex) {
	s, p := sh.s, sh.progress[t]
	r := sh.running[t]
	if p == nil || r == nil || !p.begun {
		return
	}
	links := len(s.links())
	if len(p.by) < links && (len(p.by) == 0 || s.m.now.Mono < p.since+s.m.cfg.Beat) {
		return
	}
	delete(sh.progress, t)
	c := sh.st.at(t)
	if c.done != nil || c.life != r.life {
		s.dropStates(p.state, p.next)
		return
	}
	r.checks++
	check := &protocol.Checkpoint{StageRef: sh.st.ref, Life: c.life, Task: t, Epoch: r.epoch, Sequence: r.checks, State: p.state}
	if c.check != nil {
		if old := c.check.Body.(*protocol.Checkpoint); !old.State.Equals(p.state) {
			check.Earlier = old.State
		} else {
			check.Earlier = old.Earlier
		}
	}
	s.sign(check)
	if p.next.Defined() {
		sh.addProgress(r, p.next)
	}
}

// progressTick looks at the checkpoints on their way.
func (sh *share) progressTick() {
	for _, t := range sortedKeys(sh.progress) {
		if sh.running[t] == nil {
			gone := sh.progress[t]
			delete(sh.progress, t)
			sh.s.dropStates(gone.state, gone.next)
			continue
		}
		if !sh.progress[t].begun {
			sh.beginProgress(sh.running[t])
			continue
		}
		sh.settleProgress(t)
		if p := sh.progress[t]; p != nil && len(p.by) > 0 {
			sh.s.wakeAt(p.since + sh.s.m.cfg.Beat)
		}
	}
}

// stateStored hears from a keeper that it has the state of a checkpoint.
func (s *swarm) stateStored(from protocol.PeerID, c cid.Cid) {
	for _, sh := range s.shares {
		if sh == nil {
			continue
		}
		for _, t := range sortedKeys(sh.progress) {
			if p := sh.progress[t]; p.state == c {
				p.by[from] = true
				sh.settleProgress(t)
			}
		}
	}
}

// replicate stores a member's file, as the state of a checkpoint.
func (s *swarm) replicate(from protocol.PeerID, q *protocol.Replicate) {
	if s.keep == nil || !s.running() {
		return
	}
	s.m.fetch(Fetch{Kind: FetchOutputs, Job: s.id, Roots: []cid.Cid{q.Root}, Limit: s.stateLimit(), From: []protocol.PeerID{from}}, func(f Fetched) {
		if f.Err != nil {
			return
		}
		s.m.out.Sync = true
		s.m.send(from, &protocol.Stored{Job: s.id, Pages: []cid.Cid{q.Root}})
	})
}

// stateLimit is how many bytes the state of a task may have: what its disk limit allows in
// /state/, and a little for how it is stored.
func (s *swarm) stateLimit() uint64 {
	most := uint64(0)
	for i := range s.manifest().Stages {
		most = max(most, s.manifest().Stages[i].Limits.Disk)
	}
	return most + most/64 + 1<<20
}

// checkpointOf is the checkpoint that a record about to be learned may replace.
func (s *swarm) checkpointOf(rec *protocol.Record) *protocol.Record {
	b, ok := rec.Body.(*protocol.Checkpoint)
	if !ok {
		return nil
	}
	if st := s.ledger.stage(b.StageRef); st != nil && uint64(b.Task) < st.n {
		return st.at(b.Task).check
	}
	return nil
}

// statesIn are the states of the tasks that a result about to be learned ends: nobody
// goes on from them any more.
func (s *swarm) statesIn(rec *protocol.Record) []cid.Cid {
	var r protocol.Range
	var ref protocol.StageRef
	switch b := rec.Body.(type) {
	case *protocol.Done:
		ref, r = b.StageRef, b.Range
	case *protocol.Seal:
		if ref = b.StageRef; b.Level == 0 {
			r = protocol.Block(b.Number).Range(s.ledger.tasks(b.Stage))
		}
	}
	st := s.ledger.stage(ref)
	if st == nil {
		return nil
	}
	var list []cid.Cid
	st.each(r.Intersect(st.all()), func(_ protocol.Range, c *cell) bool {
		if c.done == nil && c.check != nil {
			list = append(list, c.check.Body.(*protocol.Checkpoint).States()...)
		}
		return true
	})
	return list
}

// tellStates tells a peer that may take over a range where to go on with its tasks, and
// which of them have failed or killed a peer.
func (s *swarm) tellStates(p protocol.PeerID, rec *protocol.Record) {
	b, ok := rec.Body.(*protocol.Segment)
	if !ok || b.Holder != "" && b.Holder != p {
		return
	}
	if st := s.ledger.stage(b.StageRef); st != nil {
		st.each(b.Range, func(_ protocol.Range, c *cell) bool {
			s.tellPast(p, c)
			return true
		})
	}
}

// tellPast tells a peer what a task has behind it.
func (s *swarm) tellPast(p protocol.PeerID, c *cell) {
	if c.check != nil {
		s.m.tell(p, c.check)
	}
	for _, rec := range c.failed.all() {
		s.m.tell(p, rec)
	}
}

// checkpointLearned lets go of the states that a newer checkpoint replaces.
func (s *swarm) checkpointLearned(old *protocol.Record) {
	if old != nil {
		s.dropStates(old.Body.(*protocol.Checkpoint).States()...)
	}
}

// dropStates lets go of states that nothing needs any more. Two of the same content have
// one name: a task that is run again makes that of its last run, and another may too.
func (s *swarm) dropStates(list ...cid.Cid) {
	list = slices.DeleteFunc(list, func(c cid.Cid) bool { return !c.Defined() })
	if len(list) == 0 {
		return
	}
	needed := map[string]bool{}
	for i, st := range s.ledger.stages {
		if st == nil {
			continue
		}
		st.each(st.all(), func(_ protocol.Range, c *cell) bool {
			if c.check != nil {
				for _, state := range c.check.Body.(*protocol.Checkpoint).States() {
					needed[key(state)] = true
				}
			}
			return true
		})
		if sh := s.shares[i]; sh != nil {
			for _, t := range sortedKeys(sh.progress) {
				needed[key(sh.progress[t].state)], needed[key(sh.progress[t].next)] = true, true
			}
		}
	}
	for _, state := range list {
		if !needed[key(state)] {
			s.m.drop(Drop{Job: s.id, Root: state})
		}
	}
}

func (m *Machine) drop(d Drop) { m.out.Drop = append(m.out.Drop, d) }
