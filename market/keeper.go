package market

import (
	"slices"
	"time"

	"github.com/compute-mesh/mesh/protocol"
)

// inviteState is how a keeper sees to it that there are enough of them.
type inviteState struct {
	asked    map[protocol.PeerID]invitation
	refused  map[protocol.PeerID]time.Duration // not asked again before then
	few      [protocol.MaxGroups]time.Duration // since when a group has too few; never: enough
	accepted bool                              // there were enough once
	coming   protocol.GroupSet                 // what this peer is invited to keep and is on its way
	ledger   time.Duration                     // when it has taken so long that this peer keeps the ledger and pages meanwhile
	signing  bool                              // this peer's own Keep is being made
	progress []protocol.PeerID
	held     []heldPage    // pages that came meanwhile
	next     time.Duration // when the inviters are told that it still is
}

// invitation is what a candidate was asked to keep, and when it was last heard of.
type invitation struct {
	at     time.Duration
	groups protocol.GroupSet
}

func (v *inviteState) init() {
	v.asked = map[protocol.PeerID]invitation{}
	v.refused = map[protocol.PeerID]time.Duration{}
	for g := range v.few {
		v.few[g] = never
	}
}

// keepNow signs this peer's Keep: everything it promises is in the store. It tells those that
// have invited it, who tell the other keepers; where nobody has, it tells them itself.
func (s *swarm) keepNow(groups protocol.GroupSet, told ...protocol.PeerID) {
	s.m.out.Sync = true
	s.invite.signing = true
	defer func() { s.invite.signing = false }()
	rec := s.sign(&protocol.Keep{Job: s.id, Groups: groups, Sequence: s.m.sequence()})
	if rec == nil {
		return
	}
	if s.keep != nil && len(told) == 0 {
		s.pass(rec, s.m.self)
	}
	for _, p := range told {
		s.m.tell(p, rec)
	}
}

// keepLearned looks at what a new keeper means: it may be one that was invited, and who
// invited it tells it what is known. The others have an exchange with it, as any two keepers.
func (s *swarm) keepLearned(rec *protocol.Record) {
	b := rec.Body.(*protocol.Keep)
	_, asked := s.invite.asked[rec.Signer]
	s.comes(rec.Signer, b.Groups)
	if rec.Signer == s.m.self {
		if !s.invite.signing { // forgotten, as by a journal from a backup
			s.m.fetch(Fetch{
				Kind: FetchJob, Job: s.id, Signed: s.ledger.job, Groups: b.Groups, Kept: true, From: s.keepSources("", b.Groups),
			}, func(Fetched) { s.m.out.Sync = true })
		}
		if s.keep = s.ledger.keepOf(s.m.self); s.keep == nil {
			s.call()
			return
		}
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
	if s.keep != nil && asked {
		s.introduce(rec)
	}
	if s.keep != nil && !ofInput(rec) {
		s.tellStored(rec.Signer)
	}
	s.settleAccepted()
}

// introduce tells the other keepers of one that this peer has invited, and that one, if it keeps
// the ledger, all that is known.
func (s *swarm) introduce(keep *protocol.Record) {
	for _, k := range s.others() {
		if k == keep.Signer {
			continue
		}
		if s.m.tellSoon(k, keep); !ofInput(keep) {
			s.m.urge(k)
		}
	}
	if !ofInput(keep) {
		s.m.tellAll(keep.Signer, s)
	}
}

// comes takes from what a candidate was asked to keep what it has signed for. A Keep of the
// ledger alone is the beginning.
func (s *swarm) comes(p protocol.PeerID, groups protocol.GroupSet) {
	q := s.invite.asked[p]
	if q.groups &^= groups; q.groups == 0 {
		delete(s.invite.asked, p)
	} else {
		s.invite.asked[p] = q
	}
}

// wanted is the number of keepers that there should be, the submitter's peer included.
func (s *swarm) wanted() int { return s.manifest().Replicas + 1 }

// settleAccepted notes when the job is with as many keepers as its manifest asks for: of
// every group R beside the submitter's peer.
func (s *swarm) settleAccepted() {
	if s.invite.accepted || s.least(s.copies(func(protocol.PeerID) bool { return true })) < s.manifest().Replicas {
		return
	}
	s.invite.accepted = true
	s.m.changed(s.id)
	if s.keep != nil && s.manifest().Submitter == s.m.self {
		s.spread = s.m.now.Mono // who joins when this peer is gone finds the other keepers
		s.wakeAt(s.spread)
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
	if len(live) == 0 {
		live = s.live() // survivors, who look for the chunks
	}
	need, few := s.lacking(len(live))
	if s.out.crowded && s.heldBy(group0) == 0 { // in the place of this peer
		need[0], few = max(need[0], 1), few|group0
	}
	if few == 0 {
		return
	}
	first := ranked("invite", s.id, 0, live)[0]
	if sub := s.manifest().Submitter; (sub == s.m.self || s.m.up[sub]) && !s.hasLeft(sub) {
		first = sub // it is a keeper from the start, whether its Keep has come here or not
	}
	if first != s.m.self {
		return
	}
	if s.invite.accepted && !s.m.leaving && !s.out.crowded {
		each(few, func(g int) {
			if due := s.invite.few[g] + s.m.cfg.Hysteresis; now < due {
				s.wakeAt(due)
				need[g] = 0
				few &^= group0 << g
			}
		})
	}
	if few != 0 {
		s.place(need)
	}
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
		s.invited(from, q.Groups, false)
		return
	}
	m.remind(from, q.Job)
	m.learnJob(q.Job, []protocol.PeerID{from}, func(s *swarm, err error) {
		if err != nil {
			m.send(from, &protocol.KeepAnswer{Job: q.Job, Reason: "its manifest can't be had or is refused here"})
			return
		}
		s.hear([]protocol.PeerID{from})
		s.invited(from, q.Groups, true)
	})
	m.send(from, &protocol.KeepAnswer{Job: q.Job, Accepted: true})
}

// invited fetches what this peer is to keep, then signs. Who invites it has perhaps been told
// already that it tries.
func (s *swarm) invited(from protocol.PeerID, groups protocol.GroupSet, told bool) {
	if !s.running() && s.state != protocol.JobDone || s.m.leaving {
		s.m.send(from, &protocol.KeepAnswer{Job: s.id, Reason: "the job has ended here, or this peer is leaving"})
		return
	}
	if s.out.crowded {
		s.m.send(from, &protocol.KeepAnswer{Job: s.id, Reason: "this peer has no room for it"})
		return
	}
	groups &= s.allGroups()
	want := groups &^ s.groupsOf(s.m.self)
	if want == 0 {
		for _, k := range sorted(s.ledger.keeps) {
			if left, _ := s.ledger.left(k); k.Signer == s.m.self && left&groups != 0 {
				s.m.tell(from, k)
			}
		}
		return
	}
	if from != s.m.self {
		s.hear([]protocol.PeerID{from})
	}
	if !told {
		s.m.send(from, &protocol.KeepAnswer{Job: s.id, Accepted: true})
	}
	if !slices.Contains(s.invite.progress, from) && len(s.invite.progress) < protocol.MaxHints {
		s.invite.progress = append(s.invite.progress, from)
	}
	if s.invite.coming != 0 {
		return // who asks for more asks again
	}
	s.invite.coming = want
	s.invite.next = s.m.now.Mono + s.m.cfg.KeepWait/3
	s.invite.ledger = s.m.now.Mono + s.m.cfg.Step
	s.wakeAt(min(s.invite.next, s.invite.ledger))
	s.bring(s.keepSources(from, want))
}

// bring fetches what this peer is to keep. It may have room for some of it only.
func (s *swarm) bring(from []protocol.PeerID) {
	want, damages := s.invite.coming, s.damages
	s.m.fetch(Fetch{Kind: FetchJob, Job: s.id, Signed: s.ledger.job, Groups: want, From: from}, func(f Fetched) {
		if damages != s.damages && (f.Err == nil || f.Groups != 0) {
			s.bring(from)
			return
		}
		s.invite.coming = 0
		if !s.running() && s.state != protocol.JobDone {
			s.takeHeld()
			return
		}
		got := want
		if f.Err != nil {
			got &= f.Groups
		}
		if more := s.keepSources("", want); got == 0 && slices.ContainsFunc(more, func(p protocol.PeerID) bool { return !slices.Contains(from, p) }) {
			s.invite.coming = want
			s.bring(append(from, more...)) // whose Keeps have come meanwhile
			return
		}
		for _, p := range s.invite.progress {
			if f.Err != nil {
				s.m.send(p, &protocol.KeepAnswer{Job: s.id, Reason: "its chunks can't be stored here"})
			}
			if f.Err != nil && p == s.m.self {
				s.notBefore(p, s.m.cfg.Hysteresis)
			}
		}
		if got != 0 {
			s.keepNow(got, s.invite.progress...)
		}
		s.invite.progress = nil
		s.takeHeld()
	})
}

// keepSources are the peers to ask for what this one is to keep: who invites it, the others
// that keep the groups, the keepers.
func (s *swarm) keepSources(from protocol.PeerID, groups protocol.GroupSet) []protocol.PeerID {
	list := s.holders(groups)
	if from != "" {
		list = append([]protocol.PeerID{from}, list...)
	}
	return s.reachable(list)
}

// stillFetching keeps an invitation alive while its chunks are on their way. Where they take longer than a moment, the peer
// keeps the ledger and the pages from now on: results need not wait for the input to be copied.
func (s *swarm) stillFetching() {
	if s.invite.coming == 0 {
		return
	}
	if s.keep == nil && s.running() && s.invite.coming.Has(0) {
		if s.m.now.Mono < s.invite.ledger {
			s.wakeAt(s.invite.ledger)
		} else {
			s.keepNow(0, s.invite.progress...)
			s.takeHeld()
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
		s.confirmed(from, a.Groups)
		return
	}
	q, asked := s.invite.asked[from]
	if !asked {
		return
	}
	if a.Accepted {
		q.at = s.m.now.Mono
		s.invite.asked[from] = q
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
