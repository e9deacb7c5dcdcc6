package market

import (
	"cmp"
	"encoding/binary"
	"slices"
	"time"

	"github.com/compute-mesh/mesh/protocol"
)

// leave hands back everything: meshd is going down. What is finished is put into pages,
// what only this peer keeps is given to another; the driver waits for Busy to say no, or for
// its own patience.
func (m *Machine) leave(forGood bool) {
	m.leaving, m.forGood = true, m.forGood || forGood
	m.partAt = m.now.Mono
	for _, s := range slices.Clone(m.order) {
		if forGood && s.manifest().Replicas > 0 { // the ledger may not know yet that others go, too
			s.out.only = s.groupsOf(m.self)
		}
		s.refuseAll()
		for _, sh := range s.shares {
			if sh == nil {
				continue
			}
			for _, t := range sortedKeys(sh.running) {
				sh.stop(sh.running[t])
			}
			sh.flush()
			for _, h := range sh.st.holdings(m.self) {
				s.releaseLeft(sh, h)
			}
		}
		s.wakeAt(m.now.Mono)
	}
}

// Handed is how many ranges this peer handed back when it began to leave.
func (m *Machine) Handed() int { return m.handed }

// releaseLeft gives back the tasks of a holding that have no result here.
func (s *swarm) releaseLeft(sh *share, h holding) {
	lo := h.rng.Lo
	give := func(hi protocol.TaskIndex) {
		if lo < hi {
			s.m.handed++
			s.sign(&protocol.Segment{
				StageRef: sh.st.ref, Life: h.life, Range: protocol.Range{Lo: lo, Hi: hi}, Epoch: h.epoch + 1,
				Cause: protocol.CauseRelease, Replaced: s.m.self,
			})
		}
	}
	for _, p := range sh.pages {
		if p.Range.Lo >= lo && p.Range.Lo < h.rng.Hi {
			give(p.Range.Lo)
			lo = p.Range.Hi
		}
	}
	give(h.rng.Hi)
}

// Busy tells whether results of this peer still wait for receipts, runs for their end, or
// jobs for another keeper.
func (m *Machine) Busy() bool {
	if len(m.runs) > 0 {
		return true
	}
	for _, id := range sortedKeys(m.swarms) {
		if m.swarms[id].pushing() {
			return true
		}
	}
	for _, s := range m.order {
		for _, sh := range s.shares {
			if sh != nil && (len(sh.finished) > 0 || len(sh.pages) > 0) {
				return true
			}
		}
	}
	return false
}

// orphanTick has a member that reaches no keeper for a while become one, of the ledger
// it has: so each side of a partition, and the last survivors, go on. It then fetches
// what a keeper has from whoever serves it.
func (s *swarm) orphanTick() {
	reached := slices.ContainsFunc(s.keepers(), func(p protocol.PeerID) bool { return s.m.up[p] })
	if s.keep != nil || reached {
		s.alone = 0
		return
	}
	now := s.m.now.Mono
	if s.alone == 0 {
		s.alone, s.around = now, now
		if len(s.keepers()) > 0 { // what was said to them connects to them
			s.around += s.m.cfg.Beat
		}
	}
	if now >= s.around { // perhaps there are keepers that we have never heard of
		s.around = now + s.m.cfg.Orphan/8
		near := ranked("around/"+string(s.m.self), s.id, uint64(now), sortedKeys(s.m.up))
		for _, p := range near[:min(len(near), protocol.MaxHints)] {
			s.m.send(p, &protocol.WorkRequest{Job: s.id, Known: s.known()})
		}
	}
	s.wakeAt(s.around)
	if due := s.alone + s.m.cfg.Orphan; now < due {
		s.wakeAt(due)
		return
	}
	s.keepNow(0)
	for _, p := range sortedKeys(s.m.up) {
		s.invited(p, group0, true)
		return
	}
}

// acknowledge tells the keepers that nothing runs here for a job that was cancelled.
func (s *swarm) acknowledge() {
	if s.ledger.end == nil || s.acked {
		return
	}
	for _, sh := range s.shares {
		if sh != nil && len(sh.running) > 0 {
			return
		}
	}
	s.acked = true
	s.stopped[s.m.self] = s.ledger.end.Hash
	for _, k := range append(s.others(), s.owing...) {
		s.m.send(k, &protocol.Acknowledge{Job: s.id, Order: s.ledger.end.Hash})
	}
	s.owing = nil
	s.m.changed(s.id)
}

// acknowledged hears that a peer has stopped.
func (s *swarm) acknowledged(from protocol.PeerID, a *protocol.Acknowledge) {
	if len(s.stopped) >= MaxMembers {
		return
	}
	s.stopped[from] = a.Order
	s.m.changed(s.id)
	s.keeperHas(from, a.Order)
}

// final is what is left of a job whose retention is over: its state, until late
// announcements of it can no longer come.
type final struct {
	state   protocol.JobState
	reason  string
	expires int64            // Unix ms: the manifest's expiry and finalTime
	order   *protocol.Record // the owner's cancel or remove, for who was away; nil: the job ended by itself
}

// finalTime is how long after its expiry a job's final state is remembered, in ms.
const finalTime = int64(7 * 24 * time.Hour / time.Millisecond)

// maxReason bounds the reason kept in a final: with the job's ID it stays under 200 bytes.
const maxReason = 140

// retireAt is when, in Unix ms, an ended job's results go: its retention after the last
// seal, clamped to the manifest's life; at once when it was removed, and after a minute,
// for stragglers to hear of it, when it was cancelled.
func (s *swarm) retireAt() int64 {
	m := s.manifest()
	created, expires := m.Created.UnixMilli(), m.Expires.UnixMilli()
	if s.ledger.end != nil {
		at := s.m.now.Unix + (s.ended - s.m.now.Mono).Milliseconds()
		if s.ledger.end.Body.(*protocol.Control).Verb == protocol.VerbRemove {
			return at
		}
		return at + time.Minute.Milliseconds()
	}
	at := s.m.now.Unix + (s.ended - s.m.now.Mono).Milliseconds()
	if last := s.ledger.stages[len(s.ledger.stages)-1]; last != nil && last.top != nil {
		at = last.top.Body.(*protocol.Seal).Time
	}
	return min(max(at, created), expires) + m.Retention.Milliseconds()
}

// sweep lets go of ended jobs whose time is over. It looks every sweepTime.
func (m *Machine) sweep() {
	if m.now.Mono < m.sweepAt {
		return
	}
	m.sweepAt = m.now.Mono + sweepTime
	m.forgetCredit()
	for _, id := range sortedKeys(m.swarms) {
		s := m.swarms[id]
		switch {
		case s.state == protocol.JobRunning:
		case s.running() && s.retireAt() <= m.now.Unix: // while lost results are made again
			s.end(s.state, s.reason)
			m.retire(s)
		case s.running():
		case s.retireAt() <= m.now.Unix && (len(s.owed) == 0 || s.retireAt()+orderTime <= m.now.Unix):
			m.retire(s)
		default:
			s.soundOut()
			s.inviteTick() // results have their replicas until they go
			s.callTick()
			s.surplusTick()
			s.lostTick()
			s.orderTick()
			s.agreeTick()
		}
	}
	for _, id := range sortedKeys(m.finals) {
		if m.finals[id].expires <= m.now.Unix {
			delete(m.finals, id)
		}
	}
}

// sweepTime is how exact retention is.
const sweepTime = 10 * time.Second

// retire drops a job's results and keeps its final state.
func (m *Machine) retire(s *swarm) {
	f := final{s.state, s.reason[:min(len(s.reason), maxReason)], s.manifest().Expires.UnixMilli() + finalTime, s.ledger.end}
	delete(m.swarms, s.id)
	if len(m.finals) >= MaxFinals { // the one that late words may come of soonest is over soonest
		delete(m.finals, slices.MinFunc(sortedKeys(m.finals), func(a, b protocol.JobID) int { return cmp.Compare(m.finals[a].expires, m.finals[b].expires) }))
	}
	m.finals[s.id] = f
	m.persist(EntryFinal, s.id, f.encode())
	m.drop(Drop{Job: s.id})
	m.changed(s.id)
}

// encode is the journal's form: the state, the expiry in 8 bytes, the reason after its
// length, the order as it was signed.
func (f *final) encode() []byte {
	b := append([]byte{byte(f.state)}, binary.BigEndian.AppendUint64(nil, uint64(f.expires))...)
	b = append(append(b, byte(len(f.reason))), f.reason...)
	if f.order != nil {
		b = append(b, f.order.Raw...)
	}
	return b
}

func decodeFinal(b []byte, codec protocol.Codec) (final, bool) {
	if len(b) < 10 || len(b) < 10+int(b[9]) {
		return final{}, false
	}
	f := final{state: protocol.JobState(b[0]), expires: int64(binary.BigEndian.Uint64(b[1:9])), reason: string(b[10 : 10+int(b[9])])}
	if raw := b[10+int(b[9]):]; len(raw) > 0 {
		rec, err := codec.OpenRecord(raw)
		if err != nil {
			return final{}, false
		}
		f.order = &rec
	}
	return f, true
}

// remind tells a peer that speaks of a job which its owner ended while it was away, or which
// was let go of.
func (m *Machine) remind(to protocol.PeerID, id protocol.JobID) {
	if f, over := m.finals[id]; over && f.order != nil {
		m.tell(to, f.order)
	} else if over && f.state == protocol.JobDone {
		m.send(to, overAnswer(id))
	}
}
