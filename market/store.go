package market

import (
	"slices"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// storeState is a keeper's pages.
type storeState struct {
	pages map[string]*kept    // by page
	away  map[string]*kept    // those of them that should be here and are not
	tell  []cid.Cid           // stored here, and not told to the other keepers yet
	due   time.Duration       // when they are told
	scan  time.Duration       // when pages are looked for that should be here; not before
	seals map[string]*content // by the hash of the seal's record
	look  time.Duration       // when it is looked for what is lost
	mend  mendState
}

// kept is a page that a keeper knows of.
type kept struct {
	page  cid.Cid
	ref   protocol.StageRef
	rng   protocol.Range
	here  bool
	by    map[protocol.PeerID]bool // other keepers that have it
	from  []protocol.PeerID        // who is said to have it
	due   time.Duration            // when it is fetched, if it is not here by then
	fetch bool                     // under way

	missing time.Duration // since when nobody serves it; 0: it has not been asked for in vain
}

func (st *storeState) init() {
	st.pages, st.away = map[string]*kept{}, map[string]*kept{}
	st.seals = map[string]*content{}
}

func (s *swarm) pageOf(c cid.Cid, ref protocol.StageRef, r protocol.Range) *kept {
	p := s.store.pages[key(c)]
	if p == nil {
		p = &kept{page: c, ref: ref, rng: r, by: map[protocol.PeerID]bool{}, due: never}
		s.store.pages[key(c)] = p
	}
	return p
}

// storedHere notes that a page and its outputs are in the store, and durable by the
// time that the other keepers hear of it.
func (s *swarm) storedHere(c cid.Cid, ref protocol.StageRef, r protocol.Range) {
	p := s.pageOf(c, ref, r)
	if p.here {
		return
	}
	p.here, p.due, p.missing = true, never, 0
	delete(s.store.away, key(c))
	s.m.out.Sync = true
	if len(s.store.tell) == 0 {
		s.store.due = s.m.now.Mono + s.m.cfg.StoredTime
	}
	s.store.tell = append(s.store.tell, c)
	s.considerSeal(ref, r)
	if st := s.ledger.stage(ref); st == nil || r.Lo >= r.Hi || st.complete(r.Lo.Block()) {
		s.store.due = min(s.store.due, s.m.now.Mono)
	}
	s.wakeAt(s.store.due)
}

// flushStored tells the other keepers what came to be stored here, once it is due.
func (s *swarm) flushStored() {
	if s.m.now.Mono < s.store.due && s.running() {
		s.wakeAt(s.store.due)
		return
	}
	list := s.store.tell
	s.store.tell = nil
	list = slices.DeleteFunc(list, func(c cid.Cid) bool { // a Done with this peer's receipt says so
		p := s.store.pages[key(c)]
		return p != nil && p.by[s.m.self]
	})
	if s.keep == nil || len(list) == 0 {
		return
	}
	for _, k := range s.others() {
		s.sendStored(k, list)
	}
}

func (s *swarm) sendStored(to protocol.PeerID, list []cid.Cid) {
	for part := range slices.Chunk(list, protocol.MaxStored) {
		s.m.send(to, &protocol.Stored{Job: s.id, Pages: part})
	}
}

// tellStored tells a keeper that came back all that is stored here and not sealed.
func (s *swarm) tellStored(to protocol.PeerID) {
	var list []cid.Cid
	for _, k := range sortedKeys(s.store.pages) {
		if p := s.store.pages[k]; p.here {
			list = append(list, p.page)
		}
	}
	s.sendStored(to, list)
}

// stored takes another keeper's word for what it has. Its Keep comes by who invited it, and may
// be a moment later: then the word for a page that is known here counts.
func (s *swarm) stored(from protocol.PeerID, msg *protocol.Stored) {
	known := s.isKeeper(from)
	if known {
		for _, c := range msg.Pages {
			s.stateStored(from, c)
		}
	}
	if s.keep == nil {
		return
	}
	for _, c := range msg.Pages {
		p := s.store.pages[key(c)]
		if p == nil {
			if !known || len(s.store.pages) >= maxUnknownPages {
				continue
			}
			p = s.pageOf(c, protocol.StageRef{}, protocol.Range{})
		}
		if !known && len(p.by) >= MaxKeeps {
			continue
		}
		p.by[from] = true
		s.considerSeal(p.ref, p.rng)
	}
}

// maxUnknownPages bounds the pages of a job that are followed at once: with 1,024 tasks
// a block and a page of at least one, those of 64 open blocks in the worst case.
const maxUnknownPages = 64 * protocol.BlockSize

// maxHeldPages bounds the pages that wait for a peer to become a keeper, of up to
// protocol.MaxPage each: those of the first moments of a job, while its first keepers are
// being made.
const maxHeldPages = 16

// heldPage is a page that came before this peer's Keep.
type heldPage struct {
	from protocol.PeerID
	q    *protocol.ReceiptRequest
}

// takeHeld looks again at the pages that waited for this peer's Keep: it is there, or will
// not be.
func (s *swarm) takeHeld() {
	held := s.invite.held
	s.invite.held = nil
	for _, h := range held {
		_ = s.receiptRequest(h.from, h.q)
	}
}

// receiptRequest stores a worker's page with its outputs and signs for it.
func (s *swarm) receiptRequest(from protocol.PeerID, q *protocol.ReceiptRequest) error {
	refuse := func(why string) { s.m.send(from, &protocol.ReceiptAnswer{Job: s.id, Page: q.Page, Reason: why}) }
	if s.keep == nil {
		if s.invite.coming.Has(0) && len(s.invite.held) < maxHeldPages {
			s.invite.held = append(s.invite.held, heldPage{from, q})
			return nil
		}
		refuse("not a keeper of this job")
		return nil
	}
	if !s.running() {
		refuse("the job has ended")
		return nil
	}
	if p := s.store.pages[key(q.Page)]; p != nil && p.here {
		s.answerReceipt(from, q)
		return nil
	}
	if s.ledger.stage(q.StageRef) == nil {
		refuse("stage not open here")
		return nil
	}
	page, err := protocol.DecodePage(q.Page, q.Bytes)
	if err != nil {
		return err
	}
	if page.StageRef != q.StageRef || page.Life != q.Life || page.Range != q.Range || uint64(page.Range.Hi) > s.ledger.tasks(q.Stage) {
		refuse("the page is not what the request says")
		return nil
	}
	done := func() {
		if s.keep == nil {
			refuse("not a keeper of this job any more")
			return
		}
		s.m.out.Blocks = append(s.m.out.Blocks, job.Block{CID: q.Page, Data: q.Bytes})
		s.storedHere(q.Page, q.StageRef, q.Range)
		s.answerReceipt(from, q)
	}
	roots := page.Roots()
	if len(roots) == 0 {
		done()
		return nil
	}
	p := s.pageOf(q.Page, q.StageRef, q.Range)
	if p.fetch {
		return nil
	}
	p.fetch = true
	s.m.fetch(Fetch{Kind: FetchOutputs, Job: s.id, Roots: roots, From: []protocol.PeerID{from}}, func(f Fetched) {
		p.fetch = false
		s.wakeAt(s.m.now.Mono)
		if f.Err != nil {
			refuse("its outputs can't be stored here")
			return
		}
		done()
	})
	return nil
}

func (s *swarm) answerReceipt(to protocol.PeerID, q *protocol.ReceiptRequest) {
	rc, err := protocol.SignReceipt(s.m.cfg.Signer, s.receiptFor(q))
	if err != nil {
		return
	}
	s.m.out.Sync = true
	s.m.send(to, &protocol.ReceiptAnswer{Job: s.id, Page: q.Page, Receipt: &rc, Members: uint32(s.size())})
}

// doneLearned makes a keeper get the page, if it does not come by itself.
func (s *swarm) doneLearned(rec *protocol.Record, b *protocol.Done) {
	if sh := s.share(b.StageRef); sh != nil && rec.Signer != s.m.self {
		sh.settleLent(rec, b.Range)
		sh.reconcile()
	}
	s.moved = s.m.now.Mono
	s.did(rec.Signer)
	if s.keep != nil {
		s.wantPage(rec, b, 2*s.m.cfg.Gather)
	}
}

// wantPage sees to it that a page comes to be here: by itself, as its worker asks all
// keepers that it knows, or after a moment by asking who has it.
func (s *swarm) wantPage(rec *protocol.Record, b *protocol.Done, moment time.Duration) {
	p := s.pageOf(b.Page, b.StageRef, b.Range)
	p.ref, p.rng = b.StageRef, b.Range
	for i := range b.Receipts {
		p.by[b.Receipts[i].Signer] = true
		p.from = append(p.from, b.Receipts[i].Signer)
	}
	p.from = append(p.from, rec.Signer)
	if !p.here {
		s.await(p, min(p.due, s.m.now.Mono+moment))
	}
	s.considerSeal(b.StageRef, b.Range)
}

// await has a page that should be here fetched, if it has not come by itself until due.
func (s *swarm) await(p *kept, due time.Duration) {
	p.due = due
	s.store.away[key(p.page)] = p
	s.store.scan = min(s.store.scan, due)
	s.wakeAt(due)
}

// forgetPage lets go of a page: it is in a seal, or lost.
func (s *swarm) forgetPage(id string) {
	delete(s.store.pages, id)
	delete(s.store.away, id)
}

// storeTick fetches the pages and the content of seals that should be here.
func (s *swarm) storeTick() {
	if s.keep == nil {
		return
	}
	s.flushStored()
	if s.m.now.Mono < s.store.scan {
		s.wakeAt(s.store.scan)
		return
	}
	s.store.scan = never
	for _, k := range sortedKeys(s.store.away) {
		p := s.store.away[k]
		if p.fetch || p.due == never {
			continue
		}
		if p.due > s.m.now.Mono {
			s.store.scan = min(s.store.scan, p.due)
			s.wakeAt(p.due)
			continue
		}
		p.fetch, p.due = true, never
		damages := s.damages
		s.m.fetch(Fetch{Kind: FetchPage, Job: s.id, Root: p.page, From: s.reachable(p.from)}, func(f Fetched) {
			p.fetch = false
			if f.Err == nil && damages != s.damages {
				s.await(p, s.m.now.Mono)
				return
			}
			if f.Err == nil {
				s.storedHere(p.page, p.ref, p.rng)
				return
			}
			if p.here {
				return // its worker has brought it meanwhile
			}
			if p.missing == 0 {
				p.missing = s.m.now.Mono
			}
			p.due = s.m.now.Mono + s.m.cfg.KeepWait
			s.store.scan = min(s.store.scan, p.due)
			s.wakeAt(p.due)
		})
	}
}

// reachable is the peers of list that may be worth asking, then the other keepers.
func (s *swarm) reachable(list []protocol.PeerID) []protocol.PeerID {
	var out []protocol.PeerID
	for _, p := range append(slices.Clone(list), s.others()...) {
		if p != s.m.self && s.m.alive(p) && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}
