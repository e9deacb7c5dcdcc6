package market

import "github.com/compute-mesh/mesh/protocol"

// Jobs that are done and were let go of. Keepers remember how a job ended (final) when its
// retention is over. A peer that was away for longer has it running still, and would run it
// again alone. Who speaks of it to a peer that has let go of it hears so; it believes that of a
// keeper that its own ledger names. That a job is done is never undone, so one word is enough;
// who has more than the word, the records, is given KeepWait to tell them.

// overReason is why a job is let go of that others have let go of.
const overReason = "a keeper says that it was done, and let go of while this peer was away"

// overAnswer says that a job which is known here no more was done: it has no members.
func overAnswer(id protocol.JobID) *protocol.WorkAnswer {
	return &protocol.WorkAnswer{Job: id, State: protocol.JobDone}
}

func isOver(a *protocol.WorkAnswer) bool { return a.State == protocol.JobDone && a.Members == 0 }

// hearOver takes a peer's word that the job was done, and let go of.
func (s *swarm) hearOver(from protocol.PeerID) {
	if s.state != protocol.JobRunning || s.ledger.keepOf(from) == nil {
		return
	}
	if s.over == 0 {
		s.over = s.m.now.Mono + s.m.cfg.KeepWait
	}
	s.wakeAt(s.over)
}

// overTick lets go of a job that a keeper has let go of, and tells whether it did.
func (s *swarm) overTick() bool {
	if s.over == 0 || s.state != protocol.JobRunning {
		s.over = 0
		return false
	}
	if s.m.now.Mono < s.over {
		s.wakeAt(s.over)
		return false
	}
	s.end(protocol.JobDone, overReason)
	s.m.retire(s)
	return true
}
