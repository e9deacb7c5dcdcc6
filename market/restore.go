package market

import (
	"fmt"
	"slices"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/protocol"
)

// restore brings back the state from the journal. Records that no longer add anything,
// or whose stage has another key by now, are passed over: the join has judged them.
func (m *Machine) restore(entries []Entry) error {
	for _, e := range entries {
		switch e.Kind {
		case EntryJob:
			j, err := job.Open(e.Data)
			if err != nil {
				return fmt.Errorf("market: restore job %s: %w", e.Job, err)
			}
			if m.swarms[j.ID] == nil && j.Manifest.Expires.UnixMilli()+j.Manifest.Retention.Milliseconds() > m.now.Unix {
				s := newSwarm(m, j)
				m.swarms[j.ID] = s
				m.insert(s)
			}
		case EntryRecord:
			rec, err := m.cfg.Codec.OpenRecord(e.Data)
			if err != nil {
				return fmt.Errorf("market: restore a record of job %s: %w", e.Job, err)
			}
			if s := m.swarms[e.Job]; s != nil {
				s.noteSources(&rec)
				_, _ = s.ledger.add(&rec)
			}
		case EntryFinal:
			f, ok := decodeFinal(e.Data, m.cfg.Codec)
			if !ok {
				return fmt.Errorf("market: restore job %s: its final state is cut off", e.Job)
			}
			if s := m.swarms[e.Job]; s != nil {
				delete(m.swarms, e.Job)
				m.order = slices.DeleteFunc(m.order, func(o *swarm) bool { return o == s })
			}
			if f.expires > m.now.Unix {
				m.finals[e.Job] = f
			}
		default:
			return fmt.Errorf("market: restore: entry kind %d: unknown", e.Kind)
		}
	}
	for _, id := range sortedKeys(m.swarms) {
		m.swarms[id].restored()
	}
	return nil
}

// Entries is the journal that brings back the state as it is now: what a driver writes
// when it compacts.
func (m *Machine) Entries() []Entry {
	var list []Entry
	for _, id := range sortedKeys(m.finals) {
		f := m.finals[id]
		list = append(list, Entry{EntryFinal, id, f.encode()})
	}
	for _, id := range sortedKeys(m.swarms) {
		s := m.swarms[id]
		list = append(list, Entry{EntryJob, id, s.ledger.job.Raw})
		for _, rec := range s.ledger.records() {
			list = append(list, Entry{EntryRecord, id, rec.Raw})
		}
	}
	return list
}

// restored takes up a job after a start. What a keeper has in its store it finds out by
// asking for it: what is there comes at once.
func (s *swarm) restored() {
	s.keep = s.ledger.keepOf(s.m.self)
	s.out.going = s.takenBack()
	s.version = ^uint64(0)
	for i := range s.ledger.stages {
		s.touchStage(protocol.StageIndex(i))
	}
	s.settleState()
	s.settleAccepted()
	s.takeStock()
	for _, rec := range s.ledger.standing() {
		s.owe(rec) // whether the keepers have it is forgotten
	}
	if s.ended == 0 {
		s.listen()
	}
}

// takeStock has a keeper see to everything that the ledger names: after a start, and
// when it becomes one.
func (s *swarm) takeStock() {
	if s.keep == nil {
		return
	}
	for _, rec := range s.ledger.records() {
		switch b := rec.Body.(type) {
		case *protocol.Done:
			s.wantPage(&rec, b, 0) // its worker has asked those that were keepers then
		case *protocol.Seal:
			s.sealLearned(&rec, b)
			s.fetchSeal(&rec, b) // its own, too
		}
	}
}
