package market

import (
	"slices"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/protocol"
)

// The input of a job is cut into chunk groups, so that it may be larger than what any one
// peer keeps, and so that who runs a task has its input already. Group 0 is more than a
// part of the input: who keeps it is a keeper in the full sense, with ledger, programs,
// files and results. The others are bytes that are there from the start and never change;
// R peers beside the submitter's keep each, spread over all that there are.

// group0 is the duties of a keeper.
const group0 = protocol.GroupSet(1)

// groupsOf is the chunk groups that a peer keeps.
func (s *swarm) groupsOf(p protocol.PeerID) protocol.GroupSet { return s.ledger.roster().groups[p] }

func (s *swarm) allGroups() protocol.GroupSet { return protocol.AllGroups(s.manifest().Groups) }

// placed is what the candidates for a group are ordered by: the job or, where the group is
// input alone, the input. Who has kept it for one job is asked first for the next, and has
// it already.
func (s *swarm) placed(g int) protocol.JobID {
	if source := &s.manifest().Stages[0].Source; g > 0 && source.Index.Defined() {
		return protocol.JobIDOf(source.Index)
	}
	return s.id
}

// duty is what this peer keeps; the ledger alone counts as group 0.
func (s *swarm) duty() protocol.GroupSet {
	groups := s.groupsOf(s.m.self)
	if s.keep != nil {
		groups |= group0
	}
	return groups
}

// full tells whether a peer keeps the job's programs and results, not its ledger alone.
func (s *swarm) full(p protocol.PeerID) bool { return s.groupsOf(p).Has(0) }

// liveFull are the keepers in the full sense that may be reachable.
func (s *swarm) liveFull() []protocol.PeerID {
	return slices.DeleteFunc(s.live(), func(p protocol.PeerID) bool { return !s.full(p) })
}

// ofInput tells whether a Keep or Unkeep is of input alone: who works goes on without it.
func ofInput(rec *protocol.Record) bool {
	var groups protocol.GroupSet
	switch b := rec.Body.(type) {
	case *protocol.Keep:
		groups = b.Groups
	case *protocol.Unkeep:
		groups = b.Groups
	}
	return groups != 0 && !groups.Has(0)
}

// counts is a number for each chunk group.
type counts [protocol.MaxGroups]int

// each calls f for the groups of a set, in order.
func each(groups protocol.GroupSet, f func(g int)) {
	for g := 0; groups != 0; g, groups = g+1, groups>>1 {
		if groups&1 != 0 {
			f(g)
		}
	}
}

// copies counts who keeps each group beside the submitter's peer, of those that is holds for.
func (s *swarm) copies(is func(protocol.PeerID) bool) *counts {
	n := &counts{}
	for _, p := range s.ledger.roster().stores {
		if p != s.manifest().Submitter && is(p) {
			each(s.groupsOf(p), func(g int) { n[g]++ })
		}
	}
	return n
}

// least is the number of copies that every group has.
func (s *swarm) least(n *counts) int { return slices.Min(n[:s.manifest().Groups]) }

// lacking is how many more keepers each group is to have, those that were invited counted
// in, and which groups have too few now. keepers is how many there are of group 0.
func (s *swarm) lacking(keepers int) (need *counts, few protocol.GroupSet) {
	need = &counts{s.wanted() - keepers}
	if groups := s.manifest().Groups; groups > 1 {
		n := s.copies(s.m.alive)
		for g := 1; g < groups; g++ {
			need[g] = s.manifest().Replicas - n[g]
		}
	}
	for g := range s.manifest().Groups {
		if need[g] <= 0 {
			s.invite.few[g] = never
		} else if few |= group0 << g; s.invite.few[g] == never {
			s.invite.few[g] = s.m.now.Mono
		}
	}
	return need, few
}

// place invites candidates for the groups that lack keepers: for each the next in its
// order, of those that keep no more than their part while there are such.
func (s *swarm) place(need *counts) {
	s.awaited(need)
	if slices.Max(need[:]) <= 0 {
		return
	}
	list := s.candidates(need)
	load, most := s.loads(list)
	ask := map[protocol.PeerID]protocol.GroupSet{}
	var order []protocol.PeerID
	for g := range s.manifest().Groups {
		able := slices.DeleteFunc(slices.Clone(list), func(p protocol.PeerID) bool {
			return need[g] <= 0 || s.groupsOf(p).Has(g) || p == s.m.self && g == 0
		})
		for able = ranked("keep", s.placed(g), uint64(g), able); need[g] > 0 && len(able) > 0; need[g]-- {
			i := max(0, slices.IndexFunc(able, func(p protocol.PeerID) bool { return load[p] < most }))
			p := able[i]
			able = slices.Delete(able, i, i+1)
			load[p]++
			if ask[p] == 0 {
				order = append(order, p)
			}
			ask[p] |= group0 << g
		}
	}
	for _, p := range order {
		s.invite.asked[p] = invitation{s.m.now.Mono, ask[p]}
		s.wakeIn(s.m.cfg.KeepWait)
		if p == s.m.self {
			s.invited(p, ask[p], true)
		} else {
			s.m.send(p, &protocol.KeepRequest{Job: s.id, Groups: ask[p]})
		}
	}
}

// awaited takes from what is needed what candidates are at, and forgets those that are silent.
func (s *swarm) awaited(need *counts) {
	for _, p := range sortedKeys(s.invite.asked) {
		q := s.invite.asked[p]
		due := q.at + s.m.cfg.KeepWait
		if p == s.m.self && s.invite.coming != 0 {
			due = never
		}
		if p != s.m.self && !s.m.up[p] || s.m.now.Mono >= due {
			delete(s.invite.asked, p)
			s.notBefore(p, s.m.cfg.KeepWait)
			continue
		}
		each(q.groups, func(g int) { need[g]-- })
		s.wakeAt(due)
	}
}

// candidates are the peers that could keep what is needed: the connected ones and, for
// input that it has not, this one.
func (s *swarm) candidates(need *counts) []protocol.PeerID {
	var groups protocol.GroupSet
	for g, n := range need {
		if n > 0 {
			groups |= group0 << g
		}
	}
	peers := sortedKeys(s.m.up)
	if groups&^group0 != 0 && !s.m.leaving && !s.out.crowded {
		peers = append(peers, s.m.self)
	}
	var list []protocol.PeerID
	for _, p := range peers {
		if _, asked := s.invite.asked[p]; asked || groups&^s.groupsOf(p) == 0 {
			continue
		}
		if until, refused := s.invite.refused[p]; refused && s.m.now.Mono < until {
			s.wakeAt(until)
			continue
		}
		delete(s.invite.refused, p)
		list = append(list, p)
	}
	return list
}

// loads is how many groups each peer keeps, and how many it would if all that can had
// equal parts.
func (s *swarm) loads(candidates []protocol.PeerID) (load map[protocol.PeerID]int, most int) {
	load = map[protocol.PeerID]int{}
	for _, p := range candidates {
		load[p] = 0
	}
	for _, p := range s.ledger.roster().stores {
		if p != s.manifest().Submitter && s.m.alive(p) {
			load[p] = s.groupsOf(p).Len()
		}
	}
	for p, q := range s.invite.asked {
		load[p] += q.groups.Len()
	}
	all := s.manifest().Groups * s.manifest().Replicas
	return load, (all + len(load) - 1) / max(1, len(load))
}

// endedCall is how many times a Reannounce lie between two calls for a job that has ended:
// all that may be news is who keeps its input, which is told as it comes.
const endedCall = 8

// call asks the keepers what is news, as a peer that keeps input alone does: it may have no
// work that they would hear of. It says again what it keeps, in case that was lost: no
// ledger is compared with its.
func (s *swarm) call() {
	every, links := s.m.cfg.Reannounce, s.links()
	if !s.running() { // what two keepers say of it is the same, and in full where it is news
		every, links = every*endedCall, links[:min(1, len(links))]
	}
	s.callAt = s.m.now.Mono + s.m.jitter(every)
	s.wakeAt(s.callAt)
	for _, k := range links {
		for _, rec := range sorted(s.ledger.keeps) {
			if left, _ := s.ledger.left(rec); rec.Signer == s.m.self && left != 0 {
				s.m.tell(k, rec)
			}
		}
		s.m.send(k, &protocol.WorkRequest{Job: s.id, Known: s.known()})
	}
}

// callTick calls from time to time.
func (s *swarm) callTick() {
	if s.keep != nil || s.groupsOf(s.m.self) == 0 {
		return
	}
	s.mendTick()
	if s.m.now.Mono >= s.callAt {
		s.call()
	}
	s.wakeAt(s.callAt)
}

// holders are the peers but this one that may be reachable and keep a group of a set.
func (s *swarm) holders(groups protocol.GroupSet) []protocol.PeerID {
	return slices.DeleteFunc(slices.Clone(s.ledger.roster().stores), func(p protocol.PeerID) bool {
		return p == s.m.self || s.groupsOf(p)&groups == 0 || !s.m.alive(p)
	})
}

// everybody is who keeps any part of the job, in order.
func (s *swarm) everybody() []protocol.PeerID {
	list := append(slices.Clone(s.keepers()), s.ledger.roster().stores...)
	slices.Sort(list)
	return slices.Compact(list)
}

// sourcesOf are the peers that have what a task reads: who keeps its input, in an order of
// this peer's own, then the keepers.
func (s *swarm) sourcesOf(stage protocol.StageIndex, t protocol.TaskIndex) []protocol.PeerID {
	m, keepers := s.manifest(), s.sources()
	if m.Groups == 1 || m.Stages[stage].Source.Kind != job.SourceIndex {
		return keepers
	}
	g := m.GroupOf(stage, t)
	list := ranked("source/"+string(s.m.self), s.id, uint64(g), s.holders(group0<<g))
	return append(list, slices.DeleteFunc(keepers, func(p protocol.PeerID) bool { return slices.Contains(list, p) })...)
}

// near is the chunk groups that a bidder has, or is about to.
func (s *swarm) near(b standing) protocol.GroupSet {
	return b.Groups | s.groupsOf(b.from) | s.invite.asked[b.from].groups
}

// nearTasks bounds the stages whose tasks are granted by where their input is: up to there
// the blocks that are so open at a time are not more than the groups. A larger one is worked
// through block by block.
const nearTasks = protocol.MaxGroups * protocol.BlockSize

// nearFirst is the tasks of a stage in the order in which they are granted, from the far
// end: first those whose input a bidder has.
func (sh *share) nearFirst(near protocol.GroupSet) []protocol.Range {
	m := sh.s.manifest()
	if m.Groups == 1 || sh.stage().Source.Kind != job.SourceIndex || sh.st.n > nearTasks {
		return []protocol.Range{sh.st.all()}
	}
	var list, rest []protocol.Range
	for g := m.Groups - 1; g >= 0; g-- {
		if r := m.GroupTasks(sh.st.ref.Stage, g); near.Has(g) {
			list = append(list, r)
		} else {
			rest = append(rest, r)
		}
	}
	return append(list, rest...)
}
