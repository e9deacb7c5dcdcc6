package market

import (
	"time"

	"github.com/compute-mesh/mesh/protocol"
)

// Tasks that kill their host. A peer that comes back tells which tasks it was running when
// it died. One of them may be why, or none: it counts nothing, and from then on they run
// alone, wherever they are taken. Who dies while one runs alone counts that as an attempt.
// So a task that kills whatever runs it uses up its attempts as any that fails.
//
// Some peers come back late. So a keeper that sees a second peer go while it ran a task
// says the same of it; and a task that is suspected, and whose holder went, waits for what
// that one has to tell before another peer takes it.

// deathState is what a peer knows of tasks whose holders went.
type deathState struct {
	seen map[taskKey]int           // peers that went while they ran it, as far as this keeper judged
	cool map[taskKey]time.Duration // suspected, and not to be adopted before then
}

type taskKey struct {
	stage protocol.StageIndex
	task  protocol.TaskIndex
}

// maxDeaths bounds the tasks in each table of a deathState; a full one is begun anew.
const maxDeaths = 4096

// deadly tells whether a task may be what killed a peer.
func deadly(c *cell) bool {
	for _, rec := range c.failed.all() {
		switch failedOf(rec).Reason {
		case protocol.ReasonDeath, protocol.ReasonSuspect:
			return true
		}
	}
	return false
}

// died takes the word of a task that was running here when this peer died.
func (m *Machine) died(in DiedTask) {
	s := m.swarms[in.Job]
	if s == nil || !s.running() || int(in.Stage) >= len(s.shares) {
		return
	}
	sh := s.shares[in.Stage]
	if sh == nil || uint64(in.Index) >= sh.st.n || sh.st.at(in.Index).done != nil {
		return
	}
	if !in.Alone {
		sh.suspectTask(in.Index)
		return
	}
	c := sh.st.at(in.Index)
	g := s.ledger.generation()
	s.sign(&protocol.Failed{
		StageRef: sh.st.ref, Life: c.life, Task: in.Index, Generation: g, Attempt: c.failed.by(m.self, g) + 1, Reason: protocol.ReasonDeath,
	})
	if c = sh.st.at(in.Index); s.running() && !s.ledger.exhausted(c) {
		sh.release(in.Index, c)
	}
}

// suspectTask says that a task may have killed a peer. Where it has failed for this peer,
// that stands: another is to try it anyway.
func (sh *share) suspectTask(t protocol.TaskIndex) {
	c, g := sh.st.at(t), sh.s.ledger.generation()
	if c.failed.by(sh.s.m.self, g) == 0 {
		sh.s.sign(&protocol.Failed{StageRef: sh.st.ref, Life: c.life, Task: t, Generation: g, Reason: protocol.ReasonSuspect})
	}
}

// wentWith counts that a peer went while it ran what its last beat said.
func (s *swarm) wentWith(w *member, p protocol.PeerID) {
	if w == nil {
		return
	}
	d := &s.watch.deaths
	for i := range w.work {
		sh := s.share(w.work[i].Stage)
		if sh == nil {
			continue
		}
		for _, t := range w.work[i].Running {
			if uint64(t) >= sh.st.n {
				continue
			}
			if c := sh.st.at(t); c.done != nil || sh.st.holder(c) != p {
				continue
			}
			if len(d.seen) >= maxDeaths {
				clear(d.seen)
			}
			k := taskKey{sh.st.ref.Stage, t}
			if d.seen[k]++; d.seen[k] > 1 {
				sh.suspectTask(t)
			}
		}
	}
}

// coolDown has the suspected tasks of a range that was released for its holder wait for
// what the holder may tell when it is back.
func (s *swarm) coolDown(b *protocol.Segment) {
	st := s.ledger.stage(b.StageRef)
	if st == nil || b.Cause != protocol.CauseReleaseFor {
		return
	}
	d := &s.watch.deaths
	st.each(b.Range, func(r protocol.Range, c *cell) bool {
		if c.done != nil || !deadly(c) {
			return true
		}
		for t := r.Lo; t < r.Hi && len(d.cool) < maxDeaths; t++ {
			d.cool[taskKey{b.Stage, t}] = s.m.now.Mono + s.m.cfg.Orphan
		}
		return true
	})
}

// cooling is until when a task, and its equals beside it, are not to be adopted; 0: they are.
func (s *swarm) cooling(stage protocol.StageIndex, t protocol.TaskIndex, c *cell) time.Duration {
	if !deadly(c) {
		return 0
	}
	return s.watch.deaths.cool[taskKey{stage, t}]
}

// told ends the wait for a task: a peer has said how it fared with it.
func (s *swarm) told(b *protocol.Failed) {
	delete(s.watch.deaths.cool, taskKey{b.Stage, b.Task})
}
