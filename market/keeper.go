package market

import (
	"slices"
	"time"

	"github.com/compute-mesh/mesh/protocol"
)

// inviteState is how a keeper sees to it that there are enough of them.
type inviteState struct {
	asked    map[protocol.PeerID]time.Duration // invited, and when last heard of
	refused  map[protocol.PeerID]time.Duration // not asked again before then
	few      time.Duration                     // since when there are too few; never: enough
	accepted bool                              // there were enough once
	fetching bool                              // what this peer is invited to keep is on its way
	signing  bool                              // this peer's own Keep is being made
	progress []protocol.PeerID
	next     time.Duration // when the inviters are told that it still is
	ledger   time.Duration // when it has taken so long that this peer keeps the ledger and pages meanwhile
}

func (v *inviteState) init() {
	v.asked = map[protocol.PeerID]time.Duration{}
	v.refused = map[protocol.PeerID]time.Duration{}
	v.few = never
}

// keepNow signs this peer's Keep: everything it promises is in the store.
func (s *swarm) keepNow(groups protocol.GroupSet) {
	s.m.out.Sync = true
	s.invite.signing = true
	defer func() { s.invite.signing = false }()
	if rec := s.sign(&protocol.Keep{Job: s.id, Groups: groups, Sequence: s.m.sequence()}); rec != nil {
		s.keep = rec
		s.pass(rec, s.m.self)
	}
}

// keepLearned looks at what a new keeper means: it may be one that was invited, and it
// has to be told what is known here.
func (s *swarm) keepLearned(rec *protocol.Record) {
	if rec.Body.(*protocol.Keep).Groups != 0 {
		delete(s.invite.asked, rec.Signer)
	}
	if rec.Signer == s.m.self {
		if known := s.keep != nil || s.invite.signing; !known { // forgotten, as by a journal from a backup
			s.m.fetch(Fetch{
				Kind: FetchJob, Job: s.id, Signed: s.ledger.job, Groups: rec.Body.(*protocol.Keep).Groups, From: s.sources(),
			}, func(Fetched) { s.m.out.Sync = true })
		}
		s.keep = rec
		s.takeStock()
		for _, sh := range s.shares {
			if sh != nil {
				sh.ownReceipts()
			}
		}
		for _, st := range s.ledger.stages {
			if st != nil && st.n == 0 {
				s.considerSeal(st.ref, st.all())
			}
		}
		return
	}
	if s.keep != nil {
		s.m.sendRecords(rec.Signer, s.id, s.ledger.records())
		s.tellStored(rec.Signer)
	}
	s.settleAccepted()
}

// wanted is the number of keepers that there should be, the submitter's peer included.
func (s *swarm) wanted() int { return s.manifest().Replicas + 1 }

// settleAccepted notes when the job is with as many keepers as its manifest asks for:
// R beside the submitter's peer.
func (s *swarm) settleAccepted() {
	n := 0
	for _, k := range s.ledger.keepers() {
		if k != s.manifest().Submitter && s.ledger.keepOf(k).Body.(*protocol.Keep).Groups != 0 {
			n++
		}
	}
	if n >= s.manifest().Replicas && !s.invite.accepted {
		s.invite.accepted = true
		s.m.changed(s.id)
		if s.keep != nil && s.manifest().Submitter == s.m.self {
			s.spread = s.m.now.Mono // who joins when this peer is gone finds the other keepers
			s.wakeAt(s.spread)
		}
	}
}

// inviteTick has the first live keeper invite candidates while keepers are too few: at
// once before the job is accepted, after Hysteresis later.
func (s *swarm) inviteTick() {
	now := s.m.now.Mono
	s.stillFetching()
	if s.keep == nil || s.listening > 0 || s.state != protocol.JobRunning && s.state != protocol.JobDone {
		return
	}
	s.settleAccepted()
	live := s.liveFull()
	need := s.wanted() - len(live)
	if len(live) == 0 {
		live = s.live() // survivors, who look for the chunks
		need = s.wanted() - len(live)
	}
	if s.out.crowded && s.holders() == 0 {
		need = max(need, 1) // in the place of this peer
	}
	if need <= 0 {
		s.invite.few = never
		return
	}
	if s.invite.few == never {
		s.invite.few = now
	}
	first := ranked("invite", s.id, 0, live)[0]
	if sub := s.manifest().Submitter; (sub == s.m.self || s.m.up[sub]) && !s.hasLeft(sub) {
		first = sub // it is a keeper from the start, whether its Keep has come here or not
	}
	if first != s.m.self {
		return
	}
	if s.invite.accepted && !s.m.leaving && !s.out.crowded && now < s.invite.few+s.m.cfg.Hysteresis {
		s.wakeAt(s.invite.few + s.m.cfg.Hysteresis)
		return
	}
	for _, p := range sortedKeys(s.invite.asked) {
		at := s.invite.asked[p]
		if !s.m.up[p] || now >= at+s.m.cfg.KeepWait {
			delete(s.invite.asked, p)
			s.notBefore(p, s.m.cfg.KeepWait)
			continue
		}
		need--
		s.wakeAt(at + s.m.cfg.KeepWait)
	}
	for _, p := range s.candidates() {
		if need <= 0 {
			return
		}
		need--
		s.invite.asked[p] = now
		s.wakeIn(s.m.cfg.KeepWait)
		s.m.send(p, &protocol.KeepRequest{Job: s.id, Groups: protocol.AllGroups(s.manifest().Groups)})
	}
}

// candidates are the connected peers that could be keepers, in their rendezvous order.
func (s *swarm) candidates() []protocol.PeerID {
	var list []protocol.PeerID
	for _, p := range sortedKeys(s.m.up) {
		if _, asked := s.invite.asked[p]; asked || s.full(p) {
			continue
		}
		if until, refused := s.invite.refused[p]; refused && s.m.now.Mono < until {
			s.wakeAt(until)
			continue
		}
		delete(s.invite.refused, p)
		list = append(list, p)
	}
	return ranked("keep", s.id, 0, list)
}

// keepRequest is an invitation to keep a job.
func (m *Machine) keepRequest(from protocol.PeerID, q *protocol.KeepRequest) {
	if q.Leaving {
		m.answerLeaver(from, q)
		return
	}
	if s := m.swarms[q.Job]; s != nil {
		if s.keep != nil {
			s.brief(from) // who invites may know less than we do
		}
		s.invited(from, q.Groups)
		return
	}
	m.remind(from, q.Job)
	m.learnJob(q.Job, []protocol.PeerID{from}, func(s *swarm, err error) {
		if err != nil {
			m.send(from, &protocol.KeepAnswer{Job: q.Job, Reason: "its manifest can't be had or is refused here"})
			return
		}
		s.hear([]protocol.PeerID{from})
		s.invited(from, q.Groups)
	})
	m.send(from, &protocol.KeepAnswer{Job: q.Job, Accepted: true})
}

// invited fetches what this peer is to keep, then signs.
func (s *swarm) invited(from protocol.PeerID, groups protocol.GroupSet) {
	if !s.running() && s.state != protocol.JobDone || s.m.leaving {
		s.m.send(from, &protocol.KeepAnswer{Job: s.id, Reason: "the job has ended here, or this peer is leaving"})
		return
	}
	if s.out.crowded {
		s.m.send(from, &protocol.KeepAnswer{Job: s.id, Reason: "this peer has no room for it"})
		return
	}
	if s.keep != nil && s.keep.Body.(*protocol.Keep).Groups != 0 {
		s.m.tell(from, s.keep)
		return
	}
	s.hear([]protocol.PeerID{from})
	s.m.send(from, &protocol.KeepAnswer{Job: s.id, Accepted: true})
	if !slices.Contains(s.invite.progress, from) && len(s.invite.progress) < protocol.MaxHints {
		s.invite.progress = append(s.invite.progress, from)
	}
	if s.invite.fetching {
		return
	}
	s.invite.fetching = true
	s.invite.next = s.m.now.Mono + s.m.cfg.KeepWait/3
	s.invite.ledger = s.m.now.Mono + s.m.cfg.Step
	s.wakeAt(min(s.invite.next, s.invite.ledger))
	s.bringKept(from, groups)
}

// bringKept brings what a peer that is invited is to keep, and has it sign.
func (s *swarm) bringKept(from protocol.PeerID, groups protocol.GroupSet) {
	inviters, damages := s.reachable([]protocol.PeerID{from}), s.damages
	s.m.fetch(Fetch{Kind: FetchJob, Job: s.id, Signed: s.ledger.job, Groups: groups, From: inviters}, func(f Fetched) {
		if f.Err == nil && damages != s.damages {
			s.bringKept(from, groups)
			return
		}
		s.invite.fetching = false
		if !s.running() && s.state != protocol.JobDone {
			return
		}
		if f.Err != nil {
			for _, p := range s.invite.progress {
				s.m.send(p, &protocol.KeepAnswer{Job: s.id, Reason: "its chunks can't be stored here"})
			}
			s.invite.progress = nil
			return
		}
		s.keepNow(groups)
		for _, p := range s.invite.progress {
			s.m.tell(p, s.keep)
		}
		s.invite.progress = nil
	})
}

// stillFetching keeps an invitation alive while its chunks are on their way. Where they take longer than a moment, the peer
// keeps the ledger and the pages from now on: results need not wait for the input to be copied.
func (s *swarm) stillFetching() {
	if !s.invite.fetching {
		return
	}
	if s.keep == nil && s.running() {
		if s.m.now.Mono < s.invite.ledger {
			s.wakeAt(s.invite.ledger)
		} else {
			s.keepNow(0)
			for _, p := range s.invite.progress {
				s.m.tell(p, s.keep)
			}
		}
	}
	if s.m.now.Mono >= s.invite.next {
		s.invite.next = s.m.now.Mono + s.m.cfg.KeepWait/3
		for _, p := range s.invite.progress {
			s.m.send(p, &protocol.KeepAnswer{Job: s.id, Accepted: true})
		}
	}
	s.wakeAt(s.invite.next)
}

// keepAnswer hears of a candidate.
func (s *swarm) keepAnswer(from protocol.PeerID, a *protocol.KeepAnswer) {
	if a.Holds {
		s.confirmed(from)
		return
	}
	if _, asked := s.invite.asked[from]; !asked {
		return
	}
	if a.Accepted {
		s.invite.asked[from] = s.m.now.Mono
		return
	}
	delete(s.invite.asked, from)
	s.notBefore(from, s.m.cfg.Hysteresis)
	s.wakeAt(s.m.now.Mono)
	s.m.changed(s.id)
}

// notBefore lets a candidate that was silent, or refused, be for a while.
func (s *swarm) notBefore(p protocol.PeerID, d time.Duration) {
	s.invite.refused[p] = s.m.now.Mono + d
	s.wakeAt(s.invite.refused[p])
}

// hear notes peers that an announcement or an invitation names as keepers, for as long
// as the ledger names none.
func (s *swarm) hear(keepers []protocol.PeerID) {
	for _, k := range keepers {
		if k != s.m.self && !slices.Contains(s.heard, k) && len(s.heard) < protocol.MaxHints {
			s.heard = append(s.heard, k)
			s.seek.soon()
			s.due = s.m.now.Mono
		}
	}
}
