package market

import (
	"slices"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// sealState is what a keeper waits for to seal.
type sealState struct {
	ready map[sealKey]time.Duration // complete, and since when
	doing map[sealKey]bool
	asked time.Duration         // when the others were last told again what is stored here
	pages map[blockKey][]source // pages of sealed blocks: what the seal was made of, and where the logs are
}

type sealKey struct {
	stage protocol.StageIndex
	name  sealName
}

type blockKey struct {
	stage protocol.StageIndex
	block protocol.Block
}

func (st *sealState) init() {
	st.ready = map[sealKey]time.Duration{}
	st.doing = map[sealKey]bool{}
	st.pages = map[blockKey][]source{}
}

// considerSeal looks whether blocks that a range touches are complete.
func (s *swarm) considerSeal(ref protocol.StageRef, r protocol.Range) {
	st := s.ledger.stage(ref)
	if st == nil || s.keep == nil {
		return
	}
	if st.n == 0 {
		s.readyToSeal(sealKey{ref.Stage, sealName{}}, st)
		return
	}
	if r.Lo >= r.Hi {
		return
	}
	for b := r.Lo.Block(); b <= (r.Hi - 1).Block(); b++ {
		if st.complete(b) {
			s.readyToSeal(sealKey{ref.Stage, sealName{0, uint64(b)}}, st)
		}
	}
}

func (s *swarm) readyToSeal(k sealKey, st *stage) {
	if st.sealOf(k.name.level, k.name.number) != nil {
		return
	}
	if _, known := s.sealer.ready[k]; !known {
		s.sealer.ready[k] = s.m.now.Mono
		s.store.due = min(s.store.due, s.m.now.Mono) // who seals waits for our word
	}
	s.wakeAt(s.m.now.Mono)
}

// sealTick seals what is complete: the k-th keeper in rendezvous order waits k steps.
func (s *swarm) sealTick() {
	if s.keep == nil || !s.acting() || len(s.sealer.ready) == 0 {
		return
	}
	keys := make([]sealKey, 0, len(s.sealer.ready))
	for k := range s.sealer.ready {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b sealKey) int {
		if a.stage != b.stage {
			return int(a.stage) - int(b.stage)
		}
		if a.name.level != b.name.level {
			return int(a.name.level) - int(b.name.level)
		}
		return cmpUint(a.name.number, b.name.number)
	})
	for _, k := range keys {
		st := s.ledger.stages[k.stage]
		if st == nil || st.sealOf(k.name.level, k.name.number) != nil || k.name.level == 0 && !st.complete(protocol.Block(k.name.number)) {
			delete(s.sealer.ready, k)
			continue
		}
		number := uint64(k.stage)<<48 | uint64(k.name.level)<<40 | k.name.number
		rank := slices.Index(s.inOrder(duty{name: "seal", number: number}), s.m.self)
		due := s.sealer.ready[k] + time.Duration(rank)*s.m.cfg.Step
		if s.m.now.Mono < due {
			s.wakeAt(due)
			continue
		}
		if s.sealer.doing[k] || s.tooSoon(k, st) {
			continue
		}
		if k.name.level == 0 && s.unseal(st, protocol.Block(k.name.number)) {
			delete(s.sealer.ready, k)
			continue
		}
		if k.name.level > 0 {
			s.sealNode(k, st)
		} else if s.replicated(st, protocol.Block(k.name.number)) {
			s.sealBlock(k, st)
		} else {
			s.askStored(k)
			s.wakeIn(s.m.cfg.Step)
		}
	}
}

// unseal starts a new life for the tasks of a block that are done by a seal which no longer
// stands for all of it: a Reopen by who did not know of the seal has met it. Only pages
// can be sealed, and theirs are gone; the others of the block have run again already.
func (s *swarm) unseal(st *stage, b protocol.Block) bool {
	sealed, any := func(c *cell) bool { return c.done.Body.Kind() == protocol.KindSeal }, false
	st.each(b.Range(st.n), func(_ protocol.Range, c *cell) bool {
		any = sealed(c)
		return !any
	})
	if any {
		s.reopen(st, b.Range(st.n), sealed)
	}
	return any
}

// askStored mends words that got lost: while a complete block waits for pages to be with
// enough keepers, all of them are told again, every Exchange, what is stored here; each
// keeper that waits does so.
func (s *swarm) askStored(k sealKey) {
	if s.m.now.Mono < s.sealer.asked+s.m.cfg.Exchange || s.m.now.Mono < s.sealer.ready[k]+s.m.cfg.Exchange {
		return
	}
	s.sealer.asked = s.m.now.Mono
	for _, p := range s.others() {
		s.tellStored(p)
	}
}

// tooSoon tells whether the seal that would end the job has to wait for keepers that are
// still being invited: a result is to have its replicas when it is called done. It does
// not wait longer than an invited keeper may be silent.
func (s *swarm) tooSoon(k sealKey, st *stage) bool {
	if s.invite.accepted || int(k.stage) != len(s.ledger.stages)-1 || int(k.name.level) != job.TopLevel(st.n) {
		return false
	}
	due := s.sealer.ready[k] + s.m.cfg.KeepWait
	if s.m.now.Mono >= due || len(s.ledger.keepers()) >= min(s.wanted(), len(s.m.up)+1) {
		return false
	}
	s.wakeAt(due)
	return true
}

// replicated tells whether every page of a block is held by R keepers, or by all that
// are seen alive.
func (s *swarm) replicated(st *stage, b protocol.Block) bool {
	live := s.live()
	need := min(max(s.manifest().Replicas, 1), len(live))
	ok := true
	st.each(b.Range(st.n), func(_ protocol.Range, c *cell) bool {
		p := s.store.pages[key(c.done.Body.(*protocol.Done).Page)]
		if p == nil || !p.here {
			ok = false
			return false
		}
		n := 1
		for _, k := range live {
			if k != s.m.self && p.by[k] {
				n++
			}
		}
		ok = n >= need
		return ok
	})
	return ok
}

// piece is a part of a block whose results are in one page.
type piece struct {
	rng  protocol.Range
	done *protocol.Record
	life protocol.Life
}

func pieces(st *stage, b protocol.Block) []piece {
	var list []piece
	st.each(b.Range(st.n), func(r protocol.Range, c *cell) bool {
		list = append(list, piece{r, c.done, c.life})
		return true
	})
	return list
}

// sealBlock loads the pages of a complete block, one after another, and seals what they
// say. It starts anew when another result won meanwhile.
func (s *swarm) sealBlock(k sealKey, st *stage) {
	s.sealer.doing[k] = true
	b := protocol.Block(k.name.number)
	if st.n == 0 {
		s.finishSeal(k, st, 0, nil)
		return
	}
	parts := pieces(st, b)
	var results []protocol.Result
	var life protocol.Life
	var load func(i int)
	load = func(i int) {
		if i == len(parts) {
			if slices.Equal(parts, pieces(st, b)) {
				s.finishSeal(k, st, life, results)
			} else {
				delete(s.sealer.doing, k)
			}
			return
		}
		page := parts[i].done.Body.(*protocol.Done).Page
		s.m.fetch(Fetch{Kind: LoadPage, Job: s.id, Root: page, From: s.others()}, func(f Fetched) {
			s.wakeAt(s.m.now.Mono)
			if f.Err != nil {
				s.pageGone(page)
			}
			got, err := protocol.DecodePage(page, f.Data)
			if f.Err != nil || err != nil || st != s.ledger.stages[k.stage] || st.sealOf(0, k.name.number) != nil || !s.running() || s.keep == nil {
				delete(s.sealer.doing, k)
				s.sealer.ready[k] = s.m.now.Mono + s.m.cfg.Step
				return
			}
			n := i
			for ; n < len(parts) && parts[n].done == parts[i].done; n++ {
				r := parts[n].rng
				if r.Lo < got.Range.Lo || r.Hi > got.Range.Hi {
					delete(s.sealer.doing, k)
					return
				}
				results = append(results, got.Results[r.Lo-got.Range.Lo:r.Hi-got.Range.Lo]...)
				life = max(life, parts[n].life)
			}
			load(n)
		})
	}
	load(0)
}

// finishSeal stores the leaf with its packs and signs the seal.
func (s *swarm) finishSeal(k sealKey, st *stage, life protocol.Life, results []protocol.Result) {
	blocks, err := job.LeafOf(results)
	if err != nil {
		delete(s.sealer.doing, k)
		s.sealer.ready[k] = s.m.now.Mono + s.m.cfg.KeepWait
		return
	}
	s.signSeal(k, st, life, blocks)
}

// sealNode seals BlockSize seals of the level below, all of which are here.
func (s *swarm) sealNode(k sealKey, st *stage) {
	if block, life, ok := st.parent(k.name); ok {
		s.sealer.doing[k] = true
		s.signSeal(k, st, life, []job.Block{block})
	}
}

// parent is the node of a part of the tree above level 0, and the highest life below it;
// false: not all seals of the level below are here.
func (s *stage) parent(name sealName) (_ job.Block, life protocol.Life, ok bool) {
	var children []cid.Cid
	lo := name.number * protocol.BlockSize
	for n := lo; n < min(lo+protocol.BlockSize, job.SealShape(s.n)[name.level-1]); n++ {
		child := s.sealOf(name.level-1, n)
		if child == nil {
			return job.Block{}, 0, false
		}
		b := child.Body.(*protocol.Seal)
		children = append(children, b.Root)
		life = max(life, b.Life)
	}
	block, err := job.EncodeNode(job.Node{Children: children})
	return block, life, err == nil
}

func (s *swarm) signSeal(k sealKey, st *stage, life protocol.Life, blocks []job.Block) {
	delete(s.sealer.doing, k)
	delete(s.sealer.ready, k)
	s.m.out.Blocks = append(s.m.out.Blocks, blocks...)
	s.m.out.Sync = true
	s.sign(&protocol.Seal{
		StageRef: st.ref, Life: life, Level: k.name.level, Number: k.name.number, Root: blocks[0].CID,
		Time: s.m.now.Unix, Keep: s.keep.Hash,
	})
}

// sealLearned goes up the tree, opens the stages that waited, and makes a keeper get
// what the seal names.
func (s *swarm) sealLearned(rec *protocol.Record, b *protocol.Seal) {
	for i := range s.ledger.stages {
		s.touchStage(protocol.StageIndex(i))
	}
	st := s.ledger.stage(b.StageRef)
	if st == nil {
		return
	}
	if sh := s.shares[b.Stage]; sh != nil {
		sh.reconcile()
	}
	if s.keep == nil {
		return
	}
	s.letPagesGo(st, b)
	if rec.Signer != s.m.self {
		s.fetchSeal(rec, b)
	}
	s.considerParent(st, b)
	for i, next := range s.ledger.stages {
		if next != nil && next.n == 0 {
			s.considerSeal(protocol.StageRef{Job: s.id, Stage: protocol.StageIndex(i), Key: next.ref.Key}, next.all())
		}
	}
}

// considerParent looks whether the seals of the next level's are all here.
func (s *swarm) considerParent(st *stage, b *protocol.Seal) {
	shape := job.SealShape(st.n)
	if int(b.Level)+1 >= len(shape) {
		return
	}
	up := sealName{b.Level + 1, b.Number / protocol.BlockSize}
	lo := up.number * protocol.BlockSize
	for n := lo; n < min(lo+protocol.BlockSize, shape[b.Level]); n++ {
		if st.sealOf(b.Level, n) == nil {
			return
		}
	}
	s.readyToSeal(sealKey{b.Stage, up}, st)
}

// letPagesGo forgets the pages inside a sealed block, but for where they are: their logs are
// asked for later, and the leaf is made again from them where nobody serves it.
func (s *swarm) letPagesGo(st *stage, b *protocol.Seal) {
	if b.Level > 0 || st.n == 0 {
		return
	}
	block := protocol.Block(b.Number).Range(st.n)
	k := blockKey{b.Stage, protocol.Block(b.Number)}
	gone := map[string]*kept{}
	for id, p := range s.store.pages {
		if p.ref == st.ref && p.rng.Lo >= block.Lo && p.rng.Hi <= block.Hi && p.rng.Lo < p.rng.Hi && !p.fetch {
			gone[id] = p
		}
	}
	for _, id := range sortedKeys(gone) {
		p := gone[id]
		s.sealer.note(k, source{p.page, len(p.from) > 0})
		s.forgetPage(id)
	}
}
