package market

import "github.com/compute-mesh/mesh/protocol"

// Handing over. A peer that was started with less room than what it keeps takes
// its Keep
// of some jobs back, each once another keeper has said that it holds everything; then it is on
// its way out as a surplus keeper is (unkeep.go). It does not wait longer than
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

// handTick finds a keeper for a job that this peer has no room for, then leaves it.
func (s *swarm) handTick() {
	o := &s.out
	if !o.crowded || !s.full(s.m.self) || s.m.leaving || s.listening > 0 || s.state != protocol.JobRunning && s.state != protocol.JobDone {
		return
	}
	if s.holders() > 0 {
		s.unkeep()
		return
	}
	if s.m.now.Mono >= o.ask {
		o.ask = s.m.now.Mono + s.m.cfg.KeepWait
		s.askHolds()
	}
	s.wakeAt(o.ask)
}

// holders is how many connected keepers have said that they hold everything, since this peer
// is on its way out or wants to be.
func (s *swarm) holders() (n int) {
	for _, p := range sortedKeys(s.out.held) {
		if s.m.up[p] && s.full(p) {
			n++
		}
	}
	return n
}
