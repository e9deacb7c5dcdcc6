package market

import (
	"slices"
	"time"

	"github.com/compute-mesh/mesh/protocol"
)

// adoption is a range without holder that this peer takes at due, if it is still free.
type adoption struct {
	protocol.Open
	due time.Duration
}

// maxAdoptions bounds the ranges that wait to be adopted; keepers name the rest again.
const maxAdoptions = 1024

// adoptDuty is the duty to take a range without holder; adoptPlace is what it is about:
// the block of the first task.
const adoptDuty = "adopt"

func adoptPlace(ref protocol.StageRef, t protocol.TaskIndex) uint64 {
	return uint64(ref.Stage)<<32 | uint64(t.Block())
}

// patience is how long this peer lets others adopt a range first: about k Steps, where k
// is its place among the members by the rendezvous of the range, without rounding, so that
// two seldom come at once; beyond Steps all that are left spread over as long again. Who has
// a free slot and asked for work is one of few that were told, and does not wait for those
// before Steps: in a large swarm they are busy.
func (s *swarm) patience(o *protocol.Open, asked bool) time.Duration {
	w := rendezvous(adoptDuty, s.id, adoptPlace(o.Stage, o.Range.Lo), s.m.self)
	// The top 32 bits of the hash, as a fraction, times the members: this peer's place.
	step, most := uint64(s.m.cfg.Step/time.Microsecond), uint64(s.m.cfg.Steps)
	place := (w >> 32) * min(s.size(), 1<<20)
	if place>>32 < most {
		return time.Duration(place>>12*step>>20) * time.Microsecond
	}
	wait := time.Duration(most*step*(w&0xffff)>>16) * time.Microsecond
	if asked && len(s.m.runs) < s.m.cfg.Slots {
		return wait
	}
	return time.Duration(most)*s.m.cfg.Step + wait
}

// offer considers a range that has no holder. A busy peer comes after all that are free: what
// it took would wait for a slot, until somebody free came to ask for it.
func (s *swarm) offer(o protocol.Open, asked bool) {
	sh := s.share(o.Stage)
	if sh == nil || !sh.able() || s.paused() || len(s.adopts) >= maxAdoptions {
		return
	}
	if slices.ContainsFunc(s.adopts, func(a adoption) bool {
		return a.Stage == o.Stage && a.Range.Lo <= o.Range.Lo && o.Range.Hi <= a.Range.Hi
	}) {
		return
	}
	due := s.m.now.Mono + s.patience(&o, asked)
	if len(s.m.runs) >= s.m.cfg.Slots {
		due += s.m.cfg.Step * time.Duration(min(s.size(), uint64(s.m.cfg.Steps)))
	}
	for t := o.Range.Lo; t < o.Range.Hi && t < o.Range.Lo+protocol.TaskIndex(protocol.MaxGrant); t++ {
		due = max(due, sh.avoid[t])
	}
	s.adopts = append(s.adopts, adoption{o, due})
	s.wakeAt(due)
}

// adoptTick takes the ranges whose time has come.
func (s *swarm) adoptTick() {
	if !s.acting() || len(s.adopts) == 0 {
		return
	}
	now := s.m.now.Mono
	var later []adoption
	for _, a := range s.adopts {
		if now < a.due {
			later = append(later, a)
			s.wakeAt(a.due)
			continue
		}
		if sh := s.share(a.Stage); sh != nil && !s.paused() {
			s.adopt(sh, a.Open)
		}
	}
	s.adopts = later
}

// adopt signs for the pieces of a range that are still without holder as far as this
// peer knows. Of two adopters the join chooses; the other stops.
func (s *swarm) adopt(sh *share, o protocol.Open) {
	var list []holding
	sh.st.each(o.Range, func(r protocol.Range, c *cell) bool {
		free := sh.st.holder(c) == "" || s.keep == nil && c.epoch() < o.Epoch
		if c.done != nil || c.life > o.Life || !free || s.ledger.exhausted(c) || s.cooling(o.Stage.Stage, r.Lo, c) > s.m.now.Mono {
			return true
		}
		last := len(list) - 1
		if last >= 0 && list[last].rng.Hi == r.Lo && list[last].life == max(c.life, o.Life) {
			list[last].rng.Hi = r.Hi
			list[last].epoch = max(list[last].epoch, c.epoch())
		} else {
			list = append(list, holding{r, max(c.life, o.Life), max(c.epoch(), o.Epoch)})
		}
		return true
	})
	for _, h := range list {
		s.sign(&protocol.Segment{
			StageRef: sh.st.ref, Life: h.life, Range: h.rng, Epoch: h.epoch + 1, Holder: s.m.self,
			Cause: protocol.CauseAdopt,
		})
	}
	if len(list) > 0 {
		s.m.schedule() // so that the beat says what is run of it: it may be the last
		s.link.next = s.m.now.Mono
	}
}
