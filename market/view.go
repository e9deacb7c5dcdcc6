package market

import (
	"slices"
	"strings"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// View is what this peer knows of a job. Of a job that it does not keep, the counts
// are what it happens to have heard.
type View struct {
	Job      *job.Signed
	State    protocol.JobState
	Reason   string            // why it failed, or why it does not go on; empty when all is well
	Keeper   bool              // this peer keeps the job: the counts are the ledger's
	Keeps    protocol.GroupSet // chunk groups that this peer keeps
	Going    bool              // this peer has taken a Keep back; the chunks stay until others have said that they hold them
	Accepted bool              // every chunk group has its replicas: durable without this peer
	Keepers  []protocol.PeerID
	Live     []protocol.PeerID // keepers that are not known to be out of reach
	Spread   []protocol.PeerID // who keeps parts of the input alone
	Copies   int               // of the part of the job that has the fewest: who keeps it beside the submitter's peer
	Near     int               // the same of those that are connected
	Wanted   int               // keepers beside the submitter's peer that the manifest asks for
	Members  int
	Stages   []StageView
	Shares   []Share
	Started  time.Duration     // Mono when this peer first knew the job
	Ended    time.Duration     // Mono when it saw it end; 0: it has not
	Stopped  []protocol.PeerID // who acknowledged the cancel
}

// StageView counts the tasks of a stage. Done + Running + Failed <= Tasks.
type StageView struct {
	Open    bool // its input is sealed
	Tasks   uint64
	Done    uint64
	Running uint64  // as far as beats tell
	Failed  uint64  // attempts used up
	Held    uint64  // not done, with a holder
	Top     cid.Cid // root of its top seal, once it has one
}

// Share is how many of a job's tasks have their result from a peer.
type Share struct {
	Peer  protocol.PeerID
	Tasks uint64
}

// Jobs lists the jobs that this peer has a part in, ended ones included.
func (m *Machine) Jobs() []protocol.JobID { return sortedKeys(m.swarms) }

// Announced lists the open jobs that this peer has heard of.
func (m *Machine) Announced() []protocol.Announcement {
	list := make([]protocol.Announcement, 0, len(m.table))
	for _, id := range sortedKeys(m.table) {
		list = append(list, *m.table[id])
	}
	return list
}

// Records is the visible state of a job, as far as it is here.
func (m *Machine) Records(id protocol.JobID) []protocol.Record {
	if s := m.swarms[id]; s != nil {
		return s.ledger.records()
	}
	return nil
}

// Digest is the hash of the visible state of a job; zero: it is not known here.
func (m *Machine) Digest(id protocol.JobID) protocol.Hash {
	if s := m.swarms[id]; s != nil {
		return s.ledger.digest()
	}
	return protocol.Hash{}
}

// Pages lists the pages that may have the result and the log of a task, as far as this
// peer, if it is a keeper, knows.
func (m *Machine) Pages(id protocol.JobID, stage protocol.StageIndex, t protocol.TaskIndex) []cid.Cid {
	s := m.swarms[id]
	if s == nil || int(stage) >= len(s.ledger.stages) || s.ledger.stages[stage] == nil || uint64(t) >= s.ledger.stages[stage].n {
		return nil
	}
	if c := s.ledger.stages[stage].at(t); c.done != nil {
		if b, ok := c.done.Body.(*protocol.Done); ok {
			return []cid.Cid{b.Page}
		}
	}
	var list []cid.Cid
	for _, p := range s.sealer.pages[blockKey{stage, t.Block()}] {
		list = append(list, p.page)
	}
	return list
}

// Running lists the tasks that this peer runs now.
func (m *Machine) Running() map[RunID]protocol.TaskIndex {
	list := map[RunID]protocol.TaskIndex{}
	for id, r := range m.runs {
		list[id] = r.task
	}
	return list
}

// State is a job's as this peer knows it, and whether this peer is a keeper of it: what a
// caller that asks often wants of its View. 0: it is not known here.
func (m *Machine) State(id protocol.JobID) (state protocol.JobState, keeper bool) {
	if s := m.swarms[id]; s != nil {
		return s.state, s.keep != nil
	}
	return 0, false
}

// View is what this peer knows of a job.
func (m *Machine) View(id protocol.JobID) (View, bool) {
	s := m.swarms[id]
	if s == nil {
		return View{}, false
	}
	v := View{
		Job: s.ledger.job, State: s.state, Reason: s.reason, Keeper: s.keep != nil, Going: s.out.going != 0, Accepted: s.invite.accepted,
		Keepers: s.ledger.keepers(), Live: s.live(), Wanted: s.manifest().Replicas, Members: len(s.watch.members),
		Started: s.started, Ended: s.ended,
	}
	v.Keeps, v.Copies = s.groupsOf(s.m.self), s.least(s.copies(func(protocol.PeerID) bool { return true }))
	v.Near = s.least(s.copies(func(p protocol.PeerID) bool { return p == s.m.self || s.m.up[p] }))
	v.Spread = slices.DeleteFunc(slices.Clone(s.ledger.roster().stores), func(p protocol.PeerID) bool { return s.ledger.keepOf(p) != nil })
	for i := range s.ledger.stages {
		v.Stages = append(v.Stages, s.stageView(i))
	}
	v.Shares = s.sharesOf()
	for _, p := range sortedKeys(s.stopped) {
		if s.ledger.end != nil && s.stopped[p] == s.ledger.end.Hash {
			v.Stopped = append(v.Stopped, p)
		}
	}
	switch {
	case v.State == protocol.JobRunning:
		v.Reason = s.stalled(&v)
	case v.State == protocol.JobDone && s.running():
		v.Reason = "results that were lost are being made again"
	}
	return v, true
}

// patience is how long nothing may happen before a job is shown as stalled.
const patience = 10 * time.Second

// stalled is why a running job does not go on, as far as this peer can tell; empty: it does.
func (s *swarm) stalled(v *View) string {
	if s.paused() {
		return "paused by its owner"
	}
	if s.m.now.Mono-s.moved < patience {
		return ""
	}
	running := uint64(0)
	for i := range v.Stages {
		running += v.Stages[i].Running
	}
	if strings.HasPrefix(s.link.trouble, missingText) {
		return s.missingReason(s.link.trouble)
	}
	if s.link.trouble != "" {
		return "stalled: this peer can't run its tasks: " + s.link.trouble
	}
	for _, p := range s.watch.list() {
		if w := s.watch.members[p]; strings.HasPrefix(w.trouble, missingText) && s.m.up[p] {
			return s.missingReason(w.trouble)
		} else if w.trouble != "" && s.m.up[p] {
			return "stalled: peer " + p.String() + " can't run its tasks: " + w.trouble
		}
	}
	if running > 0 || s.keep == nil {
		return ""
	}
	if text := s.missingContent(); text != "" {
		return s.missingReason(text)
	}
	if !s.able() && len(s.watch.members) == 0 {
		return "stalled: no peer has asked for its tasks: none that is connected lends a slot with the memory they need"
	}
	return ""
}

func (s *swarm) stageView(i int) StageView {
	st := s.ledger.stages[i]
	v := StageView{Tasks: s.ledger.tasks(protocol.StageIndex(i))}
	if st == nil {
		return v
	}
	v.Open = true
	if st.top != nil {
		v.Top = st.top.Body.(*protocol.Seal).Root
	}
	if st.over() {
		v.Done = v.Tasks
		return v
	}
	v.Done = st.tally.done
	free := uint64(0)
	for _, n := range s.ledger.holders(st, func(r protocol.Range, _ *cell) { free += r.Len() }) {
		v.Held += n
	}
	v.Failed = v.Tasks - v.Done - v.Held - free
	if !s.running() {
		return v
	}
	if sh := s.shares[i]; sh != nil {
		v.Running = uint64(len(sh.running))
	}
	for _, w := range s.watch.members {
		for j := range w.work {
			if w.work[j].Stage == st.ref {
				v.Running += uint64(len(w.work[j].Running))
			}
		}
	}
	v.Running = min(v.Running, v.Tasks-v.Done-v.Failed)
	return v
}

// sharesOf counts whose results stand.
func (s *swarm) sharesOf() []Share {
	list := make([]Share, 0, len(s.credit))
	for _, p := range sortedKeys(s.credit) {
		list = append(list, Share{p, s.credit[p]})
	}
	return list
}
