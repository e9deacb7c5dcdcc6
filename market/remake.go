package market

import (
	"slices"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// What a seal names may be with nobody: who signed it died before another had it. A block is
// sealed when its pages are with as many keepers as the job wants, and a leaf is made of
// nothing else; a node of nothing but the seals below it. So keepers make it again, as its
// signer did, and it is the same by its root.

// source is a page that a block's results may have come from.
type source struct {
	page  cid.Cid
	named bool // by a Done, as far as is known here; else it is just a page that came
}

// note remembers a page of a sealed block.
func (st *sealState) note(k blockKey, src source) {
	i := slices.IndexFunc(st.pages[k], func(o source) bool { return o.page == src.page })
	if i < 0 {
		st.pages[k] = append(st.pages[k], src)
		return
	}
	st.pages[k][i].named = st.pages[k][i].named || src.named
}

// noteSources remembers, before a seal is read from the journal, what it puts an end to.
func (s *swarm) noteSources(rec *protocol.Record) {
	b, ok := rec.Body.(*protocol.Seal)
	if !ok || b.Level > 0 {
		return
	}
	st := s.ledger.stage(b.StageRef)
	if st == nil {
		return
	}
	st.each(protocol.Block(b.Number).Range(st.n), func(_ protocol.Range, c *cell) bool {
		if c.done != nil {
			if d, ok := c.done.Body.(*protocol.Done); ok {
				s.sealer.note(blockKey{b.Stage, protocol.Block(b.Number)}, source{d.Page, true})
			}
		}
		return true
	})
}

// remake makes what a seal names from what it was made of, if that can be had here. What the
// leaf names in its turn is asked for after that.
func (s *swarm) remake(c *content, b *protocol.Seal) {
	st := s.ledger.stage(b.StageRef)
	if st == nil || s.keep == nil || c.remade {
		return // what is missing is something that it names
	}
	if b.Level > 0 {
		s.remakeNode(c, b, st)
		return
	}
	parts := slices.Clone(s.sealer.pages[blockKey{b.Stage, protocol.Block(b.Number)}])
	a := assembly{stage: st, block: protocol.Block(b.Number).Range(st.n)}
	a.best = make([]*origin, a.block.Len())
	c.fetch = true
	var load func(i int)
	load = func(i int) {
		if i == len(parts) {
			c.fetch = false
			if blocks := a.leaf(); blocks != nil && blocks[0].CID == b.Root && s.keep != nil {
				s.m.out.Blocks = append(s.m.out.Blocks, blocks...)
				c.remade, c.due = true, 0
				s.fetchSeal(c.rec, b)
			}
			return
		}
		s.m.fetch(Fetch{Kind: LoadPage, Job: s.id, Root: parts[i].page, From: s.others()}, func(f Fetched) {
			if page, err := protocol.DecodePage(parts[i].page, f.Data); f.Err == nil && err == nil {
				a.add(page, parts[i].named)
			}
			load(i + 1)
		})
	}
	load(0)
}

// assembly gathers a block's results from pages, which may have several for one task.
type assembly struct {
	stage *stage
	block protocol.Range
	best  []*origin // by task of the block; nil: none yet
}

// origin is where a result comes from.
type origin struct {
	result *protocol.Result
	named  bool
	life   protocol.Life
	worker protocol.PeerID
}

// add takes each result of a page that stands before the one that is there: as the join has
// it between two Done.
func (a *assembly) add(page protocol.Page, named bool) {
	r := page.Range.Intersect(a.block)
	if page.StageRef != a.stage.ref {
		return
	}
	for t := r.Lo; t < r.Hi; t++ {
		o := origin{&page.Results[t-page.Range.Lo], named, page.Life, page.Worker}
		if p := &a.best[t-a.block.Lo]; *p == nil || a.before(t, &o, *p) {
			*p = &o
		}
	}
}

// before tells whether the result of a task from x stands before that from y.
func (a *assembly) before(t protocol.TaskIndex, x, y *origin) bool {
	switch ref := a.stage.ref; {
	case x.named != y.named:
		return x.named
	case x.life != y.life:
		return x.life > y.life
	default:
		hx, hy := protocol.DoneOrder(ref.Job, ref.Stage, ref.Key, t, x.worker), protocol.DoneOrder(ref.Job, ref.Stage, ref.Key, t, y.worker)
		return slices.Compare(hx[:], hy[:]) < 0
	}
}

// leaf is the leaf with its packs; nil while the result of a task is not here.
func (a *assembly) leaf() []job.Block {
	results := make([]protocol.Result, len(a.best))
	for i, o := range a.best {
		if o == nil {
			return nil
		}
		results[i] = *o.result
	}
	blocks, err := job.LeafOf(results)
	if err != nil {
		return nil
	}
	return blocks
}

// remakeNode makes the node of a seal above level 0 from the seals below, which are in the
// ledger.
func (s *swarm) remakeNode(c *content, b *protocol.Seal, st *stage) {
	block, _, ok := st.parent(sealName{b.Level, b.Number})
	if !ok || block.CID != b.Root {
		return
	}
	c.here, c.missing = true, 0
	s.m.out.Blocks = append(s.m.out.Blocks, block)
	s.m.out.Sync = true
	s.m.changed(s.id)
}
