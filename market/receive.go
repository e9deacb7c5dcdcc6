package market

import (
	"fmt"

	"github.com/compute-mesh/mesh/protocol"
)

// received takes a message. One about a job that is not known here is no fault: its
// sender has heard of us, and the job will be, by its announcement.
func (m *Machine) received(from protocol.PeerID, msg protocol.Message) error {
	switch msg := msg.(type) {
	case *protocol.JobsRequest:
		m.sendJobs(from)
		return nil
	case *protocol.Jobs:
		for i := range msg.Announcements {
			_ = m.announced(msg.Announcements[i])
		}
		return nil
	case *protocol.KeepRequest:
		m.keepRequest(from, msg)
		return nil
	}
	id, err := jobOf(msg)
	if err != nil {
		return err
	}
	s := m.swarms[id]
	if s == nil {
		m.receivedLate(from, id, msg)
		return nil
	}
	if w := s.watch.members[from]; w != nil {
		w.seen = m.now.Mono
	}
	return s.received(from, msg)
}

// receivedLate answers a message about a job that is not known here, or no more. Nothing
// answers an answer.
func (m *Machine) receivedLate(from protocol.PeerID, id protocol.JobID, msg protocol.Message) {
	switch msg := msg.(type) {
	case *protocol.News:
		m.answerLate(from, msg)
		return
	case *protocol.Acknowledge:
		return
	case *protocol.WorkAnswer:
		if isOver(msg) {
			return
		}
	case *protocol.Bid:
		m.send(from, &protocol.Refusal{Job: id, Bid: msg.ID})
	case *protocol.ReceiptRequest:
		if waiting := m.learning[id]; len(waiting) > 0 && len(waiting) < maxHeldPages { // it has invited us just now
			m.learning[id] = append(waiting, func(s *swarm, err error) {
				if err == nil {
					_ = s.receiptRequest(from, msg)
				}
			})
			return
		}
	}
	m.remind(from, id)
}

func (s *swarm) received(from protocol.PeerID, msg protocol.Message) error {
	switch msg := msg.(type) {
	case *protocol.News:
		s.newsOf(from, msg)
	case *protocol.Digest:
		s.digest(from, msg)
	case *protocol.WorkRequest:
		s.workRequest(from, msg)
	case *protocol.WorkAnswer:
		if isOver(msg) {
			s.hearOver(from)
		} else if s.running() && s.isKeeper(from) {
			s.workAnswer(from, msg)
		}
	case *protocol.Bid:
		s.bidOf(from, msg)
	case *protocol.Grant:
		s.grant(from, msg)
	case *protocol.Refusal:
		s.refusal(from, msg)
	case *protocol.Beat:
		s.beat(from, msg)
	case *protocol.KeepAnswer:
		s.keepAnswer(from, msg)
	case *protocol.ReceiptRequest:
		return s.receiptRequest(from, msg)
	case *protocol.ReceiptAnswer:
		s.receiptAnswer(from, msg)
	case *protocol.Stored:
		s.stored(from, msg)
	case *protocol.Suspect:
		s.suspectOf(from, msg)
	case *protocol.Opinion:
		s.opinion(from, msg)
	case *protocol.Backup:
		s.backup(from, msg)
	case *protocol.Replicate:
		s.replicate(from, msg)
	case *protocol.Acknowledge:
		s.acknowledged(from, msg)
	case *protocol.Compare:
		s.compare(from, msg)
	}
	return nil
}

// jobOf is the job that a message is about.
func jobOf(msg protocol.Message) (protocol.JobID, error) {
	switch msg := msg.(type) {
	case *protocol.News:
		return msg.Job, nil
	case *protocol.Digest:
		return msg.Job, nil
	case *protocol.WorkRequest:
		return msg.Job, nil
	case *protocol.WorkAnswer:
		return msg.Job, nil
	case *protocol.Bid:
		return msg.Job, nil
	case *protocol.Grant:
		return msg.Job, nil
	case *protocol.Refusal:
		return msg.Job, nil
	case *protocol.Beat:
		return msg.Job, nil
	case *protocol.KeepAnswer:
		return msg.Job, nil
	case *protocol.ReceiptRequest:
		return msg.Job, nil
	case *protocol.ReceiptAnswer:
		return msg.Job, nil
	case *protocol.Stored:
		return msg.Job, nil
	case *protocol.Suspect:
		return msg.Job, nil
	case *protocol.Opinion:
		return msg.Job, nil
	case *protocol.Backup:
		return msg.Job, nil
	case *protocol.Replicate:
		return msg.Job, nil
	case *protocol.Acknowledge:
		return msg.Job, nil
	case *protocol.Compare:
		return msg.Job, nil
	}
	return "", fmt.Errorf("market: message %T: unknown", msg)
}
