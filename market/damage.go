package market

import (
	"time"

	"github.com/compute-mesh/mesh/protocol"
)

// Damage. Chunks that a keeper has may turn out to be bad or gone while it runs. Which file of
// a job's they are of does not matter: the keeper has everything brought that it is to have, as
// after a start. What is here comes at once, what others have comes from them, and what nobody
// serves any more is lost as any other (lost.go).

// mendState is a keeper's part in bringing back what came with its Keep.
type mendState struct {
	due   bool          // what came with the Keep may be missing
	at    time.Duration // when it is asked for again
	fetch bool          // under way
}

// damaged has a keeper look after everything that it keeps.
func (s *swarm) damaged() {
	s.damages++
	if s.duty() == 0 || s.state != protocol.JobRunning && s.state != protocol.JobDone {
		return
	}
	if s.keep != nil {
		s.bringResults()
	}
	s.store.mend.due = s.groupsOf(s.m.self) != 0
	s.mendTick()
	s.wakeAt(s.m.now.Mono)
}

// bringResults has a keeper of the ledger look for all pages and all that seals stand for.
func (s *swarm) bringResults() {
	for _, k := range sortedKeys(s.store.pages) {
		s.pageGone(s.store.pages[k].page)
	}
	for _, k := range sortedKeys(s.store.seals) {
		c := s.store.seals[k]
		c.here, c.remade = false, false
	}
	for _, rec := range s.ledger.records() {
		if b, ok := rec.Body.(*protocol.Seal); ok {
			s.fetchSeal(&rec, b) // its own, too
		}
	}
}

// mendTick brings program, files and input here.
func (s *swarm) mendTick() {
	d := &s.store.mend
	if !d.due || d.fetch {
		return
	}
	if s.m.now.Mono < d.at {
		s.wakeAt(d.at)
		return
	}
	d.fetch = true
	damages := s.damages
	groups := s.groupsOf(s.m.self)
	s.m.fetch(Fetch{Kind: FetchJob, Job: s.id, Signed: s.ledger.job, Groups: groups, Kept: true, From: s.keepSources("", groups)}, func(f Fetched) {
		d.fetch = false
		switch {
		case f.Err != nil:
			d.at = s.m.now.Mono + s.m.cfg.KeepWait
		case damages == s.damages:
			d.due, s.m.out.Sync = false, true
			return
		}
		s.wakeAt(d.at)
	})
}
