package sim

import (
	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
)

// effect counts one, and tells whether the peer outlives it: it may crash after each.
func (p *Peer) effect(name string) bool {
	p.w.Counts[name]++
	if p.doomed == 0 {
		return true
	}
	if p.doomed--; p.doomed > 0 {
		return true
	}
	p.w.Counts["fault: crash after an effect"]++
	p.CutPower()
	return false
}

// maxRounds bounds what one input may lead to: more is a loop.
const maxRounds = 1000

// carry carries out effects until there are no more, or the peer crashes.
func (p *Peer) carry() {
	p.busy = true
	defer func() { p.busy = false }()
	for n := 0; p.up; n++ {
		if n == maxRounds {
			p.w.violate("I6", "peer %d owes effects without end", p.Index)
			p.down(0)
			return
		}
		e := p.machine.Ready()
		if p.w.cfg.Tamper != nil {
			p.w.cfg.Tamper(p, &e)
		}
		p.alarm(e.Wake)
		if e.Empty() {
			return
		}
		if !p.write(&e) || !p.say(&e) || !p.do(&e) {
			return
		}
		if len(e.Changed) > 0 {
			p.w.look = true
			p.w.inv.changed(p, e.Changed)
		}
		p.machine.Advance(e)
	}
}

// write does what is for the disk. What is said or dropped afterwards waits for it; where
// nothing is, the sync may wait for the next that is.
func (p *Peer) write(e *market.Effects) bool {
	for _, b := range e.Blocks {
		p.disk.put(b.CID.KeyString(), b.Data, jobsOf(e)...)
		if !p.effect("effect: block") {
			return false
		}
	}
	if e.Sync {
		p.disk.want()
	}
	for _, entry := range e.Persist {
		p.disk.journal = append(p.disk.journal, entry)
		p.w.inv.made(p, entry)
		if !p.effect("effect: persist") {
			return false
		}
	}
	if len(e.Send) == 0 && len(e.Announce) == 0 && len(e.Drop) == 0 && p.w.chance(p.w.cfg.Lazy) {
		return true
	}
	p.disk.sync()
	p.w.inv.synced(p)
	return !e.Sync || p.effect("effect: sync")
}

func (p *Peer) say(e *market.Effects) bool {
	for _, m := range e.Send {
		p.send(m)
		if !p.effect("effect: send") {
			return false
		}
	}
	for _, a := range e.Announce {
		p.announce(a.Announcement)
		if !p.effect("effect: announce") {
			return false
		}
	}
	return true
}

func (p *Peer) do(e *market.Effects) bool {
	p.w.inv.ordered(p, e.Run)
	for _, r := range e.Run {
		p.runs[r.ID] = true
		p.queue = append(p.queue, r)
		if !p.effect("effect: run") {
			return false
		}
	}
	for _, id := range e.Stop {
		p.stop(id)
		if !p.effect("effect: stop") {
			return false
		}
	}
	p.fill()
	for _, f := range e.Fetch {
		p.fetch(f)
		if !p.effect("effect: fetch") {
			return false
		}
	}
	for _, q := range e.Probe {
		p.probe(q)
		if !p.effect("effect: probe") {
			return false
		}
	}
	for _, d := range e.Drop {
		p.drop(d)
		if !p.effect("effect: drop") {
			return false
		}
	}
	return true
}

// jobsOf lists the jobs that effects are about: their blocks are kept for all of these.
func jobsOf(e *market.Effects) (list []protocol.JobID) {
	for i := range e.Persist {
		list = append(list, e.Persist[i].Job)
	}
	for _, m := range e.Send {
		if q, ok := m.Message.(*protocol.ReceiptRequest); ok {
			list = append(list, q.Job)
		}
	}
	return append(list, e.Changed...)
}

func (p *Peer) send(m market.Envelope) {
	w := p.w
	q := w.byID[m.To]
	if q == nil {
		return
	}
	kind := messageName(m.Message)
	w.Counts[kind]++
	w.note(kind, uint64(p.Index), uint64(q.Index))
	w.inv.sent(p, q, m.Message)
	p.messages++
	q.messages++
	times := 1
	if w.chance(w.cfg.Loss) {
		w.Counts["fault: message lost"]++
		times = 0
	} else if w.chance(w.cfg.Duplicate) {
		w.Counts["fault: message doubled"]++
		times = 2
	}
	first := p.dial(q)
	for range times {
		w.bring(p, q, first+w.delay(p.Index, q.Index), func() {
			q.step(market.Received{From: p.ID(), Message: m.Message})
		})
	}
}

func (p *Peer) announce(a protocol.Announcement) {
	w := p.w
	a, err := protocol.SignAnnouncement(p.signer, a)
	if err != nil {
		w.violate("announce", "%w", err)
		return
	}
	p.announced = append(p.announced, a)
	p.later(0, func() { p.step(market.Announced{Announcement: a}) })
	if w.cfg.NoGossip {
		return
	}
	for _, q := range w.Peers {
		if q != p && !w.chance(w.cfg.Loss) {
			w.bring(p, q, 2*w.delay(p.Index, q.Index), func() { q.step(market.Announced{Announcement: a}) })
		}
	}
}

// probe asks whether a peer is there.
func (p *Peer) probe(id protocol.PeerID) {
	d := 2 * p.w.delay(p.Index, p.w.byID[id].Index)
	if !p.reaches(id) {
		d = probeWait
	}
	p.later(d, func() { p.step(market.Probed{Peer: id, Alive: p.reaches(id)}) })
}
