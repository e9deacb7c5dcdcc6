package market

import (
	"slices"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// share is what this peer does of a stage: the tasks it runs, the results that wait to
// be put in a page, and the pages that wait for receipts. Which tasks it holds is in
// the ledger.
type share struct {
	s  *swarm
	st *stage

	cursor   protocol.TaskIndex // no task of ours below it is free, but those in avoid
	fetched  protocol.TaskIndex // below it, input was asked for already
	running  map[protocol.TaskIndex]*run
	finished map[protocol.TaskIndex]*finished
	bytes    int           // of the finished, encoded, about
	since    time.Duration // when the first of the finished ended
	pages    []*pending
	avoid    map[protocol.TaskIndex]time.Duration // failed or refused here; not before then

	copies   copies
	progress map[protocol.TaskIndex]*progress // checkpoints that no record tells of yet
	counted  uint64                           // the ledger's version at which heldOpen was counted
	open     uint64                           // tasks held by us and not done
}

// run is a task that was given to the driver.
type run struct {
	id      RunID
	sh      *share
	task    protocol.TaskIndex
	life    protocol.Life
	epoch   protocol.Epoch // of the holding it was started under
	since   time.Duration
	stopped bool
	checks  uint64 // checkpoints recorded under this epoch

	resumed   bool          // from a checkpoint, and it has made none since
	nextCheck time.Duration // when its next checkpoint may go to the keepers
}

// finished is a result that is in no page yet.
type finished struct {
	life   protocol.Life
	result protocol.Result
}

// maxFailedHere bounds the tasks of a stage that this peer keeps off for a while.
const maxFailedHere = 65536

func newShare(s *swarm, st *stage) *share {
	return &share{
		s: s, st: st, running: map[protocol.TaskIndex]*run{}, finished: map[protocol.TaskIndex]*finished{},
		avoid: map[protocol.TaskIndex]time.Duration{}, counted: ^uint64(0), progress: map[protocol.TaskIndex]*progress{},
		copies: copies{map[protocol.TaskIndex][]loan{}, map[protocol.TaskIndex]protocol.PeerID{}},
	}
}

func (sh *share) stage() *job.Stage { return &sh.s.manifest().Stages[sh.st.ref.Stage] }

// able tells whether this peer may run the stage's tasks, as things are.
func (sh *share) able() bool {
	return sh.s.m.cfg.Slots > 0 && !sh.s.m.leaving && sh.stage().Limits.Memory <= sh.s.m.cfg.Memory && sh.s.m.now.Mono >= sh.s.link.unfit
}

func (sh *share) pace() *pace { return sh.s.m.paceOf(sh.stage()) }

// engaged tells whether t is on its way already.
func (sh *share) engaged(t protocol.TaskIndex) bool {
	if sh.running[t] != nil || sh.finished[t] != nil {
		return true
	}
	return slices.ContainsFunc(sh.pages, func(p *pending) bool { return p.Range.Contains(t) })
}

// mine tells whether c is a task that this peer should run.
func (sh *share) mine(c *cell) bool {
	return c.done == nil && sh.st.holder(c) == sh.s.m.self && !sh.s.ledger.exhausted(c)
}

// next is the first task of ours that is free to be run.
func (sh *share) next() (t protocol.TaskIndex, c *cell, ok bool) {
	if sh.heldOpen() == 0 {
		return 0, nil, false
	}
	now := sh.s.m.now.Mono
	sh.st.each(protocol.Range{Lo: sh.cursor, Hi: protocol.TaskIndex(sh.st.n)}, func(r protocol.Range, at *cell) bool {
		if !sh.mine(at) {
			return true
		}
		for i := r.Lo; i < r.Hi; i++ {
			if until, kept := sh.avoid[i]; kept && until > now {
				continue
			}
			if !sh.engaged(i) {
				t, c, ok = i, at, true
				return false
			}
		}
		return true
	})
	if ok {
		sh.cursor = t
	} else {
		sh.cursor = protocol.TaskIndex(sh.st.n)
	}
	return t, c, ok
}

// heldOpen is the number of tasks that this peer holds and that are not done.
func (sh *share) heldOpen() uint64 {
	if sh.st.tally.failed == 0 { // none can be exhausted
		return sh.st.tally.held[sh.s.m.self]
	}
	if sh.counted != sh.s.ledger.version {
		sh.counted = sh.s.ledger.version
		sh.open = sh.st.count(sh.mine)
	}
	return sh.open
}

// backlog is the number of tasks that this peer holds and that are not on their way.
func (sh *share) backlog() uint64 {
	n, on := sh.heldOpen(), uint64(len(sh.running)+len(sh.finished))
	for _, p := range sh.pages {
		on += p.Range.Len()
	}
	if on >= n {
		return 0
	}
	return n - on
}

// idle tells whether nothing of the stage is left to be run here.
func (sh *share) idle() bool { return len(sh.running) == 0 && sh.backlog() == 0 }

// ending tells whether nothing is left to be run here of a stage that one seal ends: all wait
// for the last results, and of a small job that is most of its time. In a larger one a peer
// often has nothing to run for a moment.
func (sh *share) ending() bool { return sh.st.n <= protocol.BlockSize && sh.idle() }

// start gives a task to the driver.
func (sh *share) start(t protocol.TaskIndex, c *cell) {
	m := sh.s.m
	m.nextID++
	r := &run{id: RunID(m.nextID), sh: sh, task: t, life: c.life, epoch: c.epoch(), since: m.now.Mono}
	m.runs[r.id] = r
	sh.running[t] = r
	sh.cursor = t + 1
	order := sh.order(r.id, t)
	if order.Alone = deadly(c); order.Alone {
		m.alone = r
	}
	if c.check != nil {
		b := c.check.Body.(*protocol.Checkpoint)
		if !c.failed.hung(sh.s.ledger.generation()) {
			order.States, r.resumed = b.States(), true
		}
		if b.Epoch == r.epoch {
			r.checks = b.Sequence
		}
	}
	m.out.Run = append(m.out.Run, order)
}

// order is the Run effect for a task.
func (sh *share) order(id RunID, t protocol.TaskIndex) Run {
	var sources []cid.Cid
	if src := sh.stage().Source; src.Kind == job.SourceOutputs {
		if top := sh.s.ledger.stages[src.Stage].top; top != nil {
			sources = []cid.Cid{top.Body.(*protocol.Seal).Root}
		}
	}
	return Run{ID: id, Job: sh.s.ledger.job, Stage: sh.st.ref.Stage, Index: t, Sources: sources, From: sh.s.sourcesOf(sh.st.ref.Stage, t)}
}

// sources are the peers that have the job's programs, files and results: the live keepers,
// in an order of this peer's own.
func (s *swarm) sources() []protocol.PeerID {
	list := s.inOrder(duty{name: "source", peer: s.m.self})
	return slices.DeleteFunc(list, func(p protocol.PeerID) bool { return p == s.m.self })
}

// stop ends a run early. Its Ended still comes.
func (sh *share) stop(r *run) {
	if !r.stopped {
		r.stopped = true
		sh.s.m.out.Stop = append(sh.s.m.out.Stop, r.id)
	}
}

// stopAll lets go of everything: the stage, or the job, is over.
func (sh *share) stopAll() {
	for _, t := range sortedKeys(sh.running) {
		sh.stop(sh.running[t])
	}
	clear(sh.finished)
	sh.pages = nil
	sh.bytes = 0
}

// reconcile stops what runs for nothing: tasks that are done or of an older life, and
// those started under an adoption that lost to another's. A peer that was merely
// released finishes what it runs, and that counts.
func (sh *share) reconcile() {
	for _, t := range sortedKeys(sh.running) {
		r, c := sh.running[t], sh.st.at(t)
		lost := false
		if c.held != nil && c.epoch() == r.epoch && sh.copies.borrowed[t] == "" {
			lost = sh.st.holder(c) != sh.s.m.self
		}
		if c.done != nil || c.life > r.life || lost {
			sh.stop(r)
		}
	}
	for _, t := range sortedKeys(sh.finished) {
		c := sh.st.at(t)
		if c.done != nil || c.life > sh.finished[t].life {
			delete(sh.finished, t)
		}
	}
}

// ended takes the end of a run.
func (m *Machine) ended(in Ended) error {
	r := m.runs[in.ID]
	if r == nil {
		return nil
	}
	delete(m.runs, in.ID)
	m.room = true
	if m.alone == r {
		m.alone = nil
	}
	sh := r.sh
	if sh.running[r.task] == r {
		delete(sh.running, r.task)
	}
	s := sh.s
	s.wakeAt(m.now.Mono)
	s.acknowledge()
	borrowed := sh.copies.borrowed[r.task] != ""
	if in.Outcome != OutcomeDone {
		delete(sh.copies.borrowed, r.task)
	}
	if !s.running() || s.shares[sh.st.ref.Stage] != sh {
		return nil
	}
	c := sh.st.at(r.task)
	if c.done != nil || c.life > r.life {
		return nil
	}
	switch in.Outcome {
	case OutcomeDone:
		sh.pace().ran(in.Wall)
		s.link.trouble, s.link.row, s.link.unfit = "", 0, 0
		sh.finish(r, in.Result)
	case OutcomeFailed:
		if borrowed && sh.st.holder(c) != m.self {
			return nil // its holder's run is the attempt
		}
		sh.failed(r, c, in)
	case OutcomeReleased:
		if borrowed {
			return nil
		}
		sh.release(r.task, c)
		if in.Missing.Defined() {
			in.Detail = missingText + in.Missing.String()
		}
		s.troubled(in.Detail)
	case OutcomeStopped:
		sh.cursor = min(sh.cursor, r.task)
	}
	return nil
}

// troubled notes that this peer could not run a task. One that gives back a second task
// before it has run one is unfit for the job: it hands back all that it holds, and
// tries again after a time that doubles up to a minute.
func (s *swarm) troubled(why string) {
	l := &s.link
	l.trouble = why
	l.row++
	s.m.changed(s.id)
	if l.row < 2 {
		return
	}
	first := s.m.cfg.Step * time.Duration(s.m.cfg.Steps)
	l.unfit = s.m.now.Mono + min(first<<min(l.row-2, 8), time.Minute)
	s.wakeAt(l.unfit)
	if len(s.m.up) == 0 {
		return
	}
	for _, sh := range s.shares {
		if sh == nil {
			continue
		}
		for _, h := range sh.st.holdings(s.m.self) {
			s.sign(&protocol.Segment{
				StageRef: sh.st.ref, Life: h.life, Range: h.rng, Epoch: h.epoch + 1,
				Cause: protocol.CauseRelease, Replaced: s.m.self,
			})
		}
	}
}

// failed records a failed attempt and gives the task back, so that another peer tries.
func (sh *share) failed(r *run, c *cell, in Ended) {
	g := sh.s.ledger.generation()
	reason := in.Reason
	if reason == protocol.ReasonTimeout && r.resumed {
		reason = protocol.ReasonHang // the state may be why: the next attempt starts anew
	}
	sh.s.sign(&protocol.Failed{
		StageRef: sh.st.ref, Life: r.life, Task: r.task, Generation: g, Attempt: c.failed.by(sh.s.m.self, g) + 1,
		Reason: reason, Exit: in.Exit, Detail: in.Detail, Log: in.Log,
	})
	if !sh.s.running() {
		return
	}
	if c = sh.st.at(r.task); c.done == nil && !sh.s.ledger.exhausted(c) {
		sh.release(r.task, c)
	}
}

// release gives a task back that can't be run here now. It is taken again only when no
// other peer has within one adoption time; alone, at once after a failure's pause.
func (sh *share) release(t protocol.TaskIndex, c *cell) {
	if len(sh.avoid) >= maxFailedHere {
		clear(sh.avoid)
	}
	m := sh.s.m
	if len(m.up) == 0 && sh.s.listening == 0 {
		sh.avoid[t] = m.now.Mono + m.cfg.Step
		sh.cursor = min(sh.cursor, t)
		return
	}
	sh.avoid[t] = m.now.Mono + m.cfg.Step*time.Duration(m.cfg.Steps)
	if sh.st.holder(c) == m.self {
		sh.s.sign(&protocol.Segment{
			StageRef: sh.st.ref, Life: c.life, Range: protocol.Range{Lo: t, Hi: t + 1}, Epoch: c.epoch() + 1,
			Cause: protocol.CauseRelease, Replaced: m.self,
		})
	}
}

// forgive looks again at the tasks whose time away from here is over.
func (sh *share) forgive() {
	for _, t := range sortedKeys(sh.avoid) {
		if sh.avoid[t] > sh.s.m.now.Mono {
			sh.s.wakeAt(sh.avoid[t])
			continue
		}
		delete(sh.avoid, t)
		sh.cursor = min(sh.cursor, t)
		sh.s.m.room = true
	}
}

// schedule gives tasks to the driver while slots are free: jobs in their order, stages
// in theirs, tasks from the low end. Short tasks are queued a little ahead.
func (m *Machine) schedule() {
	if !m.room {
		return
	}
	m.room = false
	for _, s := range m.order {
		if !s.running() || s.paused() {
			continue
		}
		for _, sh := range s.shares {
			if sh == nil || !sh.able() {
				continue
			}
			for m.alone == nil && len(m.runs) < m.cfg.Slots+sh.ahead() {
				t, c, ok := sh.next()
				if !ok {
					break
				}
				if deadly(c) && len(m.runs) > 0 {
					return // what runs ends first
				}
				sh.start(t, c)
			}
			sh.prefetch()
		}
	}
}

// ahead is how many runs may wait behind the slots: as many as make Lead of work.
func (sh *share) ahead() int {
	t := sh.pace().task()
	if t == 0 {
		return 0
	}
	return int(min(MaxQueued, sh.s.m.cfg.Lead*time.Duration(sh.s.m.cfg.Slots)/t))
}

// prefetch names the tasks that are likely to be run next.
func (sh *share) prefetch() {
	if sh.stage().Source.Kind == job.SourceArray || len(sh.running) == 0 {
		return
	}
	n := sh.s.m.cfg.Slots
	sh.st.each(protocol.Range{Lo: sh.cursor, Hi: protocol.TaskIndex(sh.st.n)}, func(r protocol.Range, c *cell) bool {
		if !sh.mine(c) {
			return true
		}
		for t := r.Lo; t < r.Hi && n > 0; t++ {
			n--
			if t < sh.fetched {
				continue
			}
			sh.fetched = t + 1
			sh.s.m.out.Prefetch = append(sh.s.m.out.Prefetch, sh.order(0, t))
		}
		return n > 0
	})
}

// paused tells whether the owner has paused the job.
func (s *swarm) paused() bool {
	return s.ledger.order != nil && s.ledger.order.Body.(*protocol.Control).Verb == protocol.VerbPause
}
