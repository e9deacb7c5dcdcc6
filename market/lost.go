package market

import (
	"slices"
	"strings"
	"time"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// Lost bytes. A keeper sees to it that everything that the ledger names is here: pages of
// results, and what seals stand for. What nobody has served for Config.Lost is lost: its
// tasks start a new life and run again. Until another seal names theirs, at the latest the
// stage's top seal, that is all there is to it. Afterwards the root of the results is
// fixed: a deterministic stage gives the same bytes again, and of another the job waits
// until the bytes come back.

// content is what a seal stands for, as far as a keeper has it.
type content struct {
	rec     *protocol.Record
	here    bool
	fetch   bool          // under way
	remade  bool          // the leaf has been made again here
	due     time.Duration // when it is asked for again
	missing time.Duration // since when nobody serves it; 0: it has not been asked for in vain
}

// fetchSeal brings a seal's leaf or node, its packs and outputs here.
func (s *swarm) fetchSeal(rec *protocol.Record, b *protocol.Seal) {
	k := string(rec.Hash[:])
	c := s.store.seals[k]
	if c == nil {
		c = &content{rec: rec}
		s.store.seals[k] = c
	}
	if c.here || c.fetch || s.m.now.Mono < c.due {
		return
	}
	c.fetch = true
	damages := s.damages
	s.m.fetch(Fetch{Kind: FetchSeal, Job: s.id, Root: b.Root, From: s.reachable([]protocol.PeerID{rec.Signer})}, func(f Fetched) {
		c.fetch = false
		if f.Err == nil && damages != s.damages {
			s.fetchSeal(rec, b)
			return
		}
		if f.Err == nil {
			c.here, c.missing = true, 0
			s.m.out.Sync = true
			return
		}
		if c.missing == 0 {
			c.missing = s.m.now.Mono
		}
		c.due = s.m.now.Mono + s.m.cfg.KeepWait
		s.wakeAt(c.due)
		s.remake(c, b)
	})
}

// pageGone notes that a page is not here after all: its file has rotted.
func (s *swarm) pageGone(c cid.Cid) {
	if p := s.store.pages[key(c)]; p != nil && p.here {
		p.here = false
		s.await(p, s.m.now.Mono)
	}
}

// lostTick asks again, every Exchange, for the content of seals, and reopens what is lost:
// the first live keeper in rendezvous order, the next a Step later.
func (s *swarm) lostTick() {
	if s.keep == nil || s.listening > 0 || s.state != protocol.JobRunning && s.state != protocol.JobDone {
		return
	}
	s.mendTick()
	if s.m.now.Mono < s.store.look {
		s.wakeAt(s.store.look)
		return
	}
	s.store.look = s.m.now.Mono + s.m.cfg.Exchange
	for _, k := range sortedKeys(s.store.seals) {
		c := s.store.seals[k]
		b := c.rec.Body.(*protocol.Seal)
		st := s.ledger.stage(b.StageRef)
		if st == nil || !sameRecord(st.sealOf(b.Level, b.Number), c.rec) {
			delete(s.store.seals, k) // another stands in its place, or none
			continue
		}
		if c.here {
			continue
		}
		s.fetchSeal(c.rec, b)
		if !c.fetch {
			s.wakeAt(c.due)
		}
		if c.missing == 0 || !s.lost(c.missing, uint64(b.Stage)<<40|b.Number) {
			continue
		}
		if b.Level == 0 && (!st.fixed(b.Number) || !s.manifest().Stages[b.Stage].Nondeterministic) {
			s.reopen(st, protocol.Block(b.Number).Range(st.n), func(c *cell) bool { return true })
		}
	}
	for _, k := range sortedKeys(s.store.away) {
		p := s.store.away[k]
		st := s.ledger.stage(p.ref)
		if p.missing == 0 || st == nil || !s.lost(p.missing, uint64(p.ref.Stage)<<40|uint64(p.rng.Lo)) {
			continue
		}
		s.forgetPage(k)
		s.reopen(st, p.rng, func(c *cell) bool {
			d, ok := c.done.Body.(*protocol.Done)
			return ok && d.Page == p.page
		})
	}
}

// lost tells whether it is this keeper's turn to say that something is lost.
func (s *swarm) lost(since time.Duration, what uint64) bool {
	rank := slices.Index(ranked("lost", s.id, what, s.live()), s.m.self)
	due := since + s.m.cfg.Lost + time.Duration(rank)*s.m.cfg.Step
	if s.m.now.Mono < due {
		s.wakeAt(due)
		return false
	}
	return true
}

// reopen starts a new life for the done tasks of a range that are lost.
func (s *swarm) reopen(st *stage, r protocol.Range, is func(*cell) bool) {
	var list []holding
	st.each(r, func(r protocol.Range, c *cell) bool {
		if c.done == nil || !is(c) {
			return true
		}
		if last := len(list) - 1; last >= 0 && list[last].rng.Hi == r.Lo && list[last].life == c.life {
			list[last].rng.Hi = r.Hi
		} else {
			list = append(list, holding{rng: r, life: c.life})
		}
		return true
	})
	for _, h := range list {
		s.sign(&protocol.Reopen{StageRef: st.ref, Range: h.rng, Life: h.life + 1, Cause: protocol.ReopenLost, Keep: s.keep.Hash})
	}
}

// fixed tells whether another seal names the root of a block's.
func (s *stage) fixed(block uint64) bool {
	return s.top != nil || s.seals[sealName{1, block / protocol.BlockSize}] != nil
}

// over tells whether nothing is left to do for a stage: its results are fixed, and none of
// its tasks began a new life since.
func (s *stage) over() bool { return s.top != nil && !s.again }

// reopened notes whether tasks run again though the stage has its top seal.
func (s *stage) reopened() {
	s.again = false
	if s.top == nil {
		return
	}
	life := s.top.Body.(*protocol.Seal).Life
	for i := range s.spans {
		c := &s.spans[i].cell
		if c.life > life && (c.done == nil || c.done.Body.Kind() != protocol.KindSeal) {
			s.again = true
			return
		}
	}
}

// mending tells whether lost results of a job are being made again.
func (l *ledger) mending() bool {
	return slices.ContainsFunc(l.stages, func(s *stage) bool { return s != nil && s.top != nil && s.again })
}

// missingText is how a peer says which chunk it lacks.
const missingText = "nobody serves chunk "

// missingReason adds who had a chunk: the keepers of any part that are out of reach.
func (s *swarm) missingReason(text string) string {
	var last []string
	for _, k := range s.everybody() {
		if k != s.m.self && !s.m.up[k] {
			last = append(last, k.String())
		}
	}
	if len(last) == 0 {
		return "stalled: " + text
	}
	return "stalled: " + text + "; the last who had it: " + strings.Join(last, ", ")
}

// missingContent names a chunk of results that nobody serves, for Config.KeepWait or more;
// empty: there is none.
func (s *swarm) missingContent() string {
	for _, k := range sortedKeys(s.store.seals) {
		if c := s.store.seals[k]; c.missing > 0 && s.m.now.Mono >= c.missing+s.m.cfg.KeepWait {
			return missingText + c.rec.Body.(*protocol.Seal).Root.String()
		}
	}
	for _, k := range sortedKeys(s.store.away) {
		if p := s.store.away[k]; p.missing > 0 && s.m.now.Mono >= p.missing+s.m.cfg.KeepWait {
			return missingText + p.page.String()
		}
	}
	return ""
}
