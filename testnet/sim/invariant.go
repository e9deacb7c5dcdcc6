package sim

import (
	"hash/maphash"
	"strings"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/compute-mesh/mesh/protocol/insecure"
	"github.com/ipfs/go-cid"
)

// leaver is a peer that has taken back what it keeps of a job.
type leaver struct {
	peer protocol.PeerID
	job  protocol.JobID
}

// invariants watches a world for what docs/design.md section 5.7 forbids. Which check is
// made when:
//
//	I1  a keeper's View of its job: there, and its state goes forward (every fourth change; at
//	    the end); a seal's pages, and the results of a done job, are with as many peers as it
//	    asks for (each seal; at the end); a job is let go of only in its time (always)
//	I2  each task's (life, epoch) at a keeper only grows (sampled); every job ends (at the end)
//	I3  a done task stays done (sampled); a seal's root is that of the right results (each
//	    seal); all results of a done job (at the end)
//	I4  no task runs twice without a fault, copies apart (at the end)
//	I5  all keepers' digests are equal (at the end, and while a job is paused)
//	I6  effects and messages of a peer in a second, bytes of a ledger (always; sampled)
//	I7  nothing is started for a paused job (each run), nothing runs for a cancelled one, a
//	    mesh without work is quiet (at the end)
//	I8  what is sent refers to what is durable, IDs are used once (each message); no record
//	    of a stranger is taken (each record)
type invariants struct {
	w         *World
	seen      map[uint64]bool   // records that were ever persisted
	keeps     map[uint64]keepOf // those of them that are Keeps
	states    map[part]protocol.JobState
	images    map[part][]image
	cancelled map[protocol.JobID]bool
	paused    map[protocol.JobID]bool      // ever
	unkept    map[protocol.Hash]bool       // Keeps that their signers have taken back
	back      map[leaver]protocol.GroupSet // what a peer has taken its Keep back of
	held      map[leaver]protocol.GroupSet // what others said since that they hold
	freed     map[leaver]map[string]bool   // blocks that a peer let go of last, with all that it had of a job
	retired   map[protocol.JobID]bool
	strangers map[protocol.PeerID]bool
	pages     map[string]protocol.Range  // what a Done said of each
	alone     map[string]protocol.PeerID // of those with one receipt, by the page's CID: who gave it
	roots     map[sealed]cid.Cid
	last      map[protocol.PeerID]protocol.Sequence // of beats and bids
	second    map[protocol.PeerID]*second
	weigh     bool // bytes sent are counted
	rotten    bool // disks have lost what was durable
	bytes     map[protocol.PeerID]Counts
	sample    int
	next      int // step at which a ledger is looked at
	largest   int // bytes of a ledger, of those looked at
}

type keepOf struct {
	signer protocol.PeerID
	job    protocol.JobID
}

// part is a peer's part in a job.
type part struct {
	peer int
	job  protocol.JobID
}

type second struct {
	at   time.Duration
	sent int
}

type sealed struct {
	stage  protocol.StageIndex
	n      uint64
	level  uint8
	number uint64
}

func (v *invariants) init(w *World) {
	*v = invariants{
		w: w, seen: map[uint64]bool{}, keeps: map[uint64]keepOf{}, states: map[part]protocol.JobState{}, images: map[part][]image{},
		cancelled: map[protocol.JobID]bool{}, paused: map[protocol.JobID]bool{}, unkept: map[protocol.Hash]bool{}, back: map[leaver]protocol.GroupSet{}, held: map[leaver]protocol.GroupSet{}, freed: map[leaver]map[string]bool{}, retired: map[protocol.JobID]bool{}, strangers: map[protocol.PeerID]bool{},
		pages: map[string]protocol.Range{}, alone: map[string]protocol.PeerID{}, roots: map[sealed]cid.Cid{}, last: map[protocol.PeerID]protocol.Sequence{}, second: map[protocol.PeerID]*second{},
		bytes: map[protocol.PeerID]Counts{},
	}
}

// keepOf tells whether a record is a Keep of this peer, and of which job.
func (p *Peer) keepOf(record uint64) (protocol.JobID, bool) {
	k, ok := p.w.inv.keeps[record]
	return k.job, ok && k.signer == p.ID()
}

// made looks at an entry that a machine wants to be persisted.
func (v *invariants) made(p *Peer, e market.Entry) {
	if e.Kind == market.EntryFinal {
		v.retired[e.Job] = true
		if m := &v.w.jobs[e.Job].Manifest; !v.cancelled[e.Job] && p.instant().Unix < m.Created.Add(m.Retention).UnixMilli() {
			v.w.violate("I1", "peer %d lets go of a job before its time", p.Index)
		}
	}
	h := maphash.Bytes(hashSeed, e.Data)
	if e.Kind != market.EntryRecord || v.seen[h] {
		return
	}
	v.seen[h] = true
	rec, err := protocol.Codec{Verifier: insecure.Verifier{}}.OpenRecord(e.Data)
	if err != nil {
		v.w.violate("I8", "peer %d persists a record that can't be opened: %w", p.Index, err)
		return
	}
	v.w.Counts[recordName(rec.Body)]++
	if v.strangers[rec.Signer] {
		v.w.violate("I8", "peer %d takes a stranger's %T", p.Index, rec.Body)
	}
	switch b := rec.Body.(type) {
	case *protocol.Keep:
		v.keeps[h] = keepOf{rec.Signer, b.Job}
	case *protocol.Unkeep:
		v.unkept[b.Keep] = true
		if rec.Signer == p.ID() {
			was := leaver{p.ID(), b.Job}
			v.back[was] |= max(b.Groups, 1)
			v.held[was] &^= max(b.Groups, 1)
		}
	case *protocol.Control:
		if rec.Signer != ownerSigner().ID() {
			v.w.violate("I8", "peer %d takes an order that is not the owner's", p.Index)
		}
	case *protocol.Seal:
		if want := v.root(b); b.Root != want {
			v.w.violate("I3", "peer %d seals level %d number %d of stage %d wrongly", p.Index, b.Level, b.Number, b.Stage)
		}
		if rec.Signer == p.ID() && b.Level == 0 {
			v.replicated(p, b)
		}
	case *protocol.Done:
		v.pages[b.Page.KeyString()] = b.Range
		if len(b.Receipts) == 1 {
			v.alone[b.Page.String()] = b.Receipts[0].Signer
		}
		for i := range b.Receipts {
			q := v.w.byID[b.Receipts[i].Signer]
			if q == p {
				p.owed = append(p.owed, b.Page.KeyString())
				continue
			}
			if q == nil || !q.disk.durable(b.Page.KeyString()) {
				v.w.violate("I8", "a result stands on a receipt of a page that is not durable")
			}
		}
	}
}

// replicated wants each result of a block that is sealed to be in a page that is durable with
// as many peers as the job asks for, or as its keeper sees alive.
func (v *invariants) replicated(p *Peer, b *protocol.Seal) {
	view, _ := p.View(b.Job)
	want := min(v.w.jobs[b.Job].Manifest.Replicas, len(view.Live))
	block := protocol.Block(b.Number).Range(view.Stages[b.Stage].Tasks)
	copies := make([]int, block.Len())
	for _, page := range p.machine.Pages(b.Job, b.Stage, block.Lo) {
		n := 0
		for _, q := range v.w.Peers {
			if q.disk.durable(page.KeyString()) || q == p { // here it becomes so with the seal
				n++
			}
		}
		for t := v.pages[page.KeyString()].Lo; t < v.pages[page.KeyString()].Hi; t++ {
			copies[t-block.Lo] = max(copies[t-block.Lo], n)
		}
	}
	for i, n := range copies {
		if 0 < n && n < want { // 0: a page that it is fetching just now
			v.w.violate("I1", "peer %d seals block %d of stage %d with %d of %d copies of the result of task %d", p.Index, b.Number, b.Stage, n, want, block.Lo+protocol.TaskIndex(i))
			return
		}
	}
}

// ordered wants no task of a job to be started that its owner has paused, as the peer knows.
func (v *invariants) ordered(p *Peer, runs []market.Run) {
	for i := range runs {
		if id := runs[i].Job.ID; v.paused[id] {
			if view, ok := p.View(id); ok && strings.HasPrefix(view.Reason, "paused") {
				v.w.violate("I7", "peer %d starts task %d of a job that it knows to be paused", p.Index, runs[i].Index)
			}
		}
	}
}

// synced wants the pages that a peer has signed for in its own results to be durable with them.
func (v *invariants) synced(p *Peer) {
	for _, k := range p.owed {
		if !p.disk.durable(k) {
			v.w.violate("I8", "peer %d: a result stands on its own receipt of a page that is not durable", p.Index)
		}
	}
	p.owed = nil
}

// root is what a seal must name: that of the results as the program gives them.
func (v *invariants) root(b *protocol.Seal) cid.Cid {
	n := v.w.jobs[b.Job].Manifest.Stages[b.Stage].Tasks
	return v.rootOf(sealed{b.Stage, n, b.Level, b.Number})
}

func (v *invariants) rootOf(s sealed) cid.Cid {
	if c, ok := v.roots[s]; ok {
		return c
	}
	var blocks []job.Block
	var err error
	if s.level == 0 {
		var results []protocol.Result
		for r, t := protocol.Block(s.number).Range(s.n), protocol.Block(s.number).Range(s.n).Lo; t < r.Hi; t++ {
			results = append(results, Result(s.stage, t))
		}
		blocks, err = job.LeafOf(results)
	} else {
		var node job.Node
		below := job.SealShape(s.n)[s.level-1]
		for k := s.number * protocol.BlockSize; k < min((s.number+1)*protocol.BlockSize, below); k++ {
			node.Children = append(node.Children, v.rootOf(sealed{s.stage, s.n, s.level - 1, k}))
		}
		blocks = make([]job.Block, 1)
		blocks[0], err = job.EncodeNode(node)
	}
	if err != nil {
		v.w.violate("sim", "the right seal: %w", err)
		return cid.Undef
	}
	v.roots[s] = blocks[0].CID
	return blocks[0].CID
}

// maxRate bounds the messages of a peer in a second: what an honest one needs at the end
// of a job, when it tells every other all it has, several times over.
func (v *invariants) maxRate() int { return 1000 + 200*len(v.w.Peers) }

// sent looks at a message before it leaves.
func (v *invariants) sent(p, to *Peer, m protocol.Message) {
	s := v.second[p.ID()]
	if s == nil {
		s = &second{}
		v.second[p.ID()] = s
	}
	if v.w.now >= s.at+time.Second {
		s.at, s.sent = v.w.now, 0
	}
	if s.sent++; s.sent == v.maxRate() {
		v.w.violate("I6", "peer %d sends %d messages within a second", p.Index, s.sent)
	}
	if v.weigh {
		if v.bytes[p.ID()] == nil {
			v.bytes[p.ID()] = Counts{}
		}
		if b, err := protocol.EncodeMessage(m); err == nil {
			v.bytes[p.ID()][messageName(m)] += len(b)
		}
	}
	refers := func(what string, durable bool) {
		if !durable {
			v.w.violate("I8", "peer %d sends a %s that refers to what is not durable: %s", p.Index, messageName(m)[len("message: "):], what)
		}
	}
	switch m := m.(type) {
	case *protocol.News:
		for i := range m.Records {
			v.durable(p, &m.Records[i], refers)
		}
	case *protocol.Grant:
		for i := range m.Segments {
			v.durable(p, &m.Segments[i], refers)
		}
	case *protocol.ReceiptAnswer:
		refers("page", m.Receipt == nil || p.disk.durable(m.Page.KeyString()))
	case *protocol.Stored:
		for _, c := range m.Pages {
			refers("block", p.disk.durable(c.KeyString()))
		}
	case *protocol.KeepAnswer:
		if m.Holds {
			v.held[leaver{to.ID(), m.Job}] |= m.Groups
		}
	case *protocol.Replicate:
		refers("state", p.disk.durable(m.Root.KeyString()))
	case *protocol.Bid:
		v.once(p, m.ID)
	case *protocol.Beat:
		v.once(p, m.Sequence)
	case *protocol.Backup:
		v.w.Copied[Task{m.Job, m.Stage.Stage, m.Task}]++
	}
}

func (v *invariants) durable(p *Peer, rec *protocol.Record, refers func(string, bool)) {
	if !p.disk.records[maphash.Bytes(hashSeed, rec.Raw)] {
		refers(recordName(rec.Body), false)
	}
	if rec.Signer != p.ID() || v.rotten {
		return
	}
	switch b := rec.Body.(type) {
	case *protocol.Keep:
		refers("manifest", p.disk.jobs[b.Job])
		eachGroup(b.Groups, func(g int) {
			for _, root := range partOf(v.w.jobs[b.Job], g) {
				refers("program or input", v.unkept[rec.Hash] || p.disk.durable(root.KeyString()))
			}
		})
	case *protocol.Seal:
		refers("leaf or node", v.unkept[b.Keep] || p.disk.durable(b.Root.KeyString()))
	case *protocol.Checkpoint:
		refers("state", v.freed[leaver{p.ID(), b.Job}][b.State.KeyString()] || p.disk.durable(b.State.KeyString())) // its keepers have it
	}
}

// once wants a peer's sequence numbers to grow, over restarts too.
func (v *invariants) once(p *Peer, s protocol.Sequence) {
	if last, ok := v.last[p.ID()]; ok && !last.Less(s) {
		v.w.violate("I8", "peer %d uses sequence number %v after %v", p.Index, s, last)
	}
	v.last[p.ID()] = s
}

// crashed forgets what was seen of a peer that may have lost what it had not synced.
func (v *invariants) crashed(p *Peer) {
	for id := range v.w.jobs {
		delete(v.states, part{p.Index, id})
		delete(v.images, part{p.Index, id})
	}
}

// changed looks at a View that may have changed.
func (v *invariants) changed(p *Peer, jobs []protocol.JobID) {
	if v.sample++; v.sample%4 != 0 {
		return
	}
	for _, id := range jobs {
		v.view(p, id)
	}
}

// view wants a job that a peer keeps to be there, with a state that follows from the last.
func (v *invariants) view(p *Peer, id protocol.JobID) {
	state, _ := p.machine.State(id)
	if state == 0 {
		if p.disk.kept[id] && !v.retired[id] {
			v.w.violate("I1", "peer %d keeps a job and does not know it", p.Index)
		}
		return
	}
	k := part{p.Index, id}
	old := v.states[k]
	v.states[k] = state
	if old != 0 && old != state {
		v.w.Counts["job: "+stateName(old)+", then "+stateName(state)]++
	}
	switch {
	case old == state:
	case old == protocol.JobCancelled, old == protocol.JobDone && state != protocol.JobCancelled:
		v.w.violate("I1", "peer %d: a job's state goes from %s to %s", p.Index, stateName(old), stateName(state))
	case state == protocol.JobFailed:
		if got, _ := p.machine.View(id); got.Reason == "" {
			v.w.violate("I1", "peer %d: a job failed without a reason", p.Index)
		}
	case state == protocol.JobCancelled && !v.cancelled[id]:
		v.w.violate("I1", "peer %d: a job is cancelled, and nobody ordered it", p.Index)
	}
}
