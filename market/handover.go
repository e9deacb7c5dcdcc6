package market

import "github.com/compute-mesh/mesh/protocol"

// Handing over. A peer that was started with less room than what it keeps takes its Keeps
// of some jobs back, of each chunk group once another peer has said that it holds it; then it
// is on its way out as a surplus keeper is (unkeep.go). It does not wait longer than
// Config.Hysteresis for as many of them as the job has replicas: there may be fewer peers.

// handOver sets which jobs this peer hands over, and does not keep when others invite it. What
// is named no more it goes on keeping, unless it has taken its Keep back already.
func (m *Machine) handOver(jobs []protocol.JobID) {
	for _, id := range sortedKeys(m.swarms) {
		m.swarms[id].out.crowded = false
	}
	for _, id := range jobs {
		if s := m.swarms[id]; s != nil {
			s.out.crowded = true
			s.handTick()
			s.wakeAt(m.now.Mono)
		}
	}
}

// handTick finds who keeps the groups of a job that this peer has no room for, then leaves them.
// Who keeps group 0 in its place is invited with the others that the job wants (inviteTick).
func (s *swarm) handTick() {
	o, groups := &s.out, s.groupsOf(s.m.self)
	if !o.crowded || groups == 0 || s.m.leaving || s.listening > 0 || s.state != protocol.JobRunning && s.state != protocol.JobDone {
		return
	}
	if held := s.heldBy(groups); held != 0 {
		s.unkeep(held)
		if groups = s.groupsOf(s.m.self); groups == 0 {
			return
		}
	}
	if s.m.now.Mono >= o.ask {
		o.ask = s.m.now.Mono + s.m.cfg.KeepWait
		s.askHolds()
		need := &counts{}
		each(groups&o.missed&^group0, func(g int) { need[g] = 1 })
		s.place(need)
		o.missed = groups
	}
	s.wakeAt(o.ask)
}

// heldBy is those of groups of which a connected peer has said that it holds them, since this
// one is on its way out or wants to be.
func (s *swarm) heldBy(groups protocol.GroupSet) (held protocol.GroupSet) {
	for _, p := range sortedKeys(s.out.held) {
		if s.m.up[p] {
			held |= s.out.held[p] & s.groupsOf(p) & groups
		}
	}
	return held
}
