package market

import (
	"errors"
	"slices"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/protocol"
)

// pending is a page whose results this peer answers for until enough keepers have it.
type pending struct {
	protocol.ReceiptRequest
	since    time.Duration
	asked    map[protocol.PeerID]asked
	receipts []protocol.SignedReceipt
}

// pageTime is how long a result waits for others of its page.
func (s *swarm) pageTime() time.Duration {
	cfg := &s.m.cfg
	return max(cfg.PageTime, min(time.Duration(s.size())*cfg.PageGap, cfg.PageMax))
}

// asked is when a keeper was asked for a receipt, and whether it said no.
type asked struct {
	at      time.Duration
	refused bool
}

// finish takes a result. It waits for others of its page for a while, or for as long as
// it takes to fill one, while there is more to run; else it goes at once.
func (sh *share) finish(r *run, res protocol.Result) {
	if len(sh.finished) == 0 {
		sh.since = sh.s.m.now.Mono
	}
	sh.finished[r.task] = &finished{r.life, res}
	sh.bytes += resultSize(&res)
	due := sh.since + sh.s.pageTime()
	if len(sh.finished) >= PageTasks || sh.bytes >= PageBytes || sh.s.m.now.Mono+sh.nextEnd() > due {
		sh.flush()
		return
	}
	sh.s.wakeAt(due)
}

// nextEnd is in how much time another result is expected, on average: where a page would be
// flushed before that, nothing is gained by waiting.
func (sh *share) nextEnd() time.Duration {
	return sh.pace().task() / time.Duration(max(sh.s.m.cfg.Slots, 1))
}

// resultSize is about the encoded size of a result, in bytes, from above.
func resultSize(r *protocol.Result) int {
	n := 96 + len(r.Stdout.Inline) + len(r.Log.Inline)
	for i := range r.Files {
		n += 96 + len(r.Files[i].Name) + len(r.Files[i].Inline)
	}
	return n
}

// pagesTick flushes what has waited long enough, or has nothing to wait for, and asks
// again for receipts that do not come.
func (s *swarm) pagesTick() {
	for _, sh := range s.shares {
		if sh == nil {
			continue
		}
		sh.forgive()
		sh.progressTick()
		if len(sh.finished) > 0 {
			due := sh.since + s.pageTime()
			if s.m.now.Mono >= due || sh.idle() {
				sh.flush()
			} else {
				s.wakeAt(due)
			}
		}
		for _, p := range slices.Clone(sh.pages) {
			sh.askReceipts(p)
			sh.settlePage(p)
		}
	}
}

// flush puts the finished results into pages of consecutive tasks of one life and one
// block, as many as fit.
func (sh *share) flush() {
	tasks := sortedKeys(sh.finished)
	for len(tasks) > 0 {
		n, size := 0, 0
		first := sh.finished[tasks[0]]
		var results []protocol.Result
		for n < len(tasks) && tasks[n] == tasks[0]+protocol.TaskIndex(n) && tasks[n].Block() == tasks[0].Block() {
			f := sh.finished[tasks[n]]
			if f.life != first.life || n > 0 && size+resultSize(&f.result) > PageBytes {
				break
			}
			size += resultSize(&f.result)
			results = append(results, f.result)
			n++
		}
		sh.page(protocol.Range{Lo: tasks[0], Hi: tasks[0] + protocol.TaskIndex(n)}, first.life, results)
		tasks = tasks[n:]
	}
	clear(sh.finished)
	sh.bytes = 0
}

// page makes a page and asks for receipts.
func (sh *share) page(r protocol.Range, life protocol.Life, results []protocol.Result) {
	m := sh.s.m
	c, data, err := protocol.EncodePage(protocol.Page{StageRef: sh.st.ref, Life: life, Range: r, Worker: m.self, Results: results})
	if err != nil {
		// A result that no page can hold: the runner has broken its contract. The tasks
		// are given back; elsewhere they may fare better.
		for t := r.Lo; t < r.Hi; t++ {
			sh.release(t, sh.st.at(t))
		}
		return
	}
	m.out.Blocks = append(m.out.Blocks, job.Block{CID: c, Data: data})
	p := &pending{
		ReceiptRequest: protocol.ReceiptRequest{StageRef: sh.st.ref, Life: life, Range: r, Page: c, Bytes: data},
		since:          m.now.Mono, asked: map[protocol.PeerID]asked{},
	}
	sh.pages = append(sh.pages, p)
	sh.ownReceipt(p)
	sh.askReceipts(p)
	sh.settlePage(p)
}

// ownReceipt signs for a page of this peer's own, where it is a keeper.
func (sh *share) ownReceipt(p *pending) {
	s := sh.s
	if s.keep == nil || slices.ContainsFunc(p.receipts, func(r protocol.SignedReceipt) bool { return r.Signer == s.m.self }) {
		return
	}
	s.m.out.Sync = true
	s.storedHere(p.Page, sh.st.ref, p.Range)
	if rc, err := protocol.SignReceipt(s.m.cfg.Signer, s.receiptFor(&p.ReceiptRequest)); err == nil {
		p.receipts = append(p.receipts, rc)
	}
}

// ownReceipts signs for the pages that were made before this peer became a keeper.
func (sh *share) ownReceipts() {
	for _, p := range slices.Clone(sh.pages) {
		sh.ownReceipt(p)
		sh.settlePage(p)
	}
}

func (s *swarm) receiptFor(q *protocol.ReceiptRequest) protocol.Receipt {
	return protocol.Receipt{StageRef: q.StageRef, Life: q.Life, Range: q.Range, Page: q.Page, Keep: s.keep.Hash}
}

// askReceipts asks for the receipts that a Done waits for: of the two keepers that this
// peer beats to, then of others where one is silent. The rest get the page from those
// once they know of it. Where all wait for the results of this peer, every live keeper is
// asked at once.
func (sh *share) askReceipts(p *pending) {
	s, m := sh.s, sh.s.m
	sh.s.wakeIn(m.cfg.KeepWait)
	want := sh.receipts() - len(p.receipts)
	all := sh.ending()
	order := s.links()
	for _, k := range append(s.sources(), s.invitees()...) {
		if !slices.Contains(order, k) {
			order = append(order, k)
		}
	}
	for _, k := range order {
		if slices.ContainsFunc(p.receipts, func(r protocol.SignedReceipt) bool { return r.Signer == k }) {
			continue
		}
		before, again := p.asked[k]
		if again && m.now.Mono < before.at+m.cfg.KeepWait {
			if !before.refused {
				want--
			}
			continue
		}
		if want <= 0 && !all {
			return
		}
		if !again {
			want--
		}
		p.asked[k] = asked{at: m.now.Mono}
		m.send(k, &p.ReceiptRequest)
	}
}

// invitees are the peers that this one has invited to be keepers: they answer once they are.
func (s *swarm) invitees() []protocol.PeerID {
	return slices.DeleteFunc(sortedKeys(s.invite.asked), func(p protocol.PeerID) bool { return !s.invite.asked[p].groups.Has(0) })
}

// receipts is how many receipts a Done waits for.
func (sh *share) receipts() int { return min(sh.s.m.cfg.Receipts, sh.s.manifest().Replicas+1) }

// enough tells whether a page has the receipts that a Done waits for: D of them, or as
// many as there can be: one where this peer is alone, or after ReceiptWait.
func (sh *share) enough(p *pending) bool {
	m := sh.s.m
	n := len(p.receipts)
	if n == 0 {
		return false
	}
	return n >= sh.receipts() || len(m.up) == 0 || m.now.Mono >= p.since+m.cfg.ReceiptWait
}

// settlePage writes the Done once it can.
func (sh *share) settlePage(p *pending) {
	if !sh.enough(p) {
		if len(p.receipts) > 0 {
			sh.s.wakeAt(p.since + sh.s.m.cfg.ReceiptWait)
		}
		return
	}
	if !slices.Contains(sh.pages, p) {
		return
	}
	receipts := p.receipts[:min(len(p.receipts), protocol.MaxReceipts)]
	rec := sh.s.sign(&protocol.Done{StageRef: p.StageRef, Life: p.Life, Range: p.Range, Page: p.Page, Receipts: receipts})
	if rec == nil && !sh.superseded(p) {
		return
	}
	if rec != nil {
		sh.settleCopies(rec, p.Range)
	}
	sh.pages = slices.DeleteFunc(sh.pages, func(o *pending) bool { return o == p })
}

// superseded tells whether every task of the page has another result already.
func (sh *share) superseded(p *pending) bool {
	all := true
	sh.st.each(p.Range, func(_ protocol.Range, c *cell) bool {
		all = all && (c.done != nil || c.life > p.Life)
		return all
	})
	return all
}

// receiptAnswer takes a receipt for one of our pages.
func (s *swarm) receiptAnswer(from protocol.PeerID, a *protocol.ReceiptAnswer) {
	if s.isKeeper(from) && a.Receipt != nil {
		s.seek.members = a.Members
	}
	for _, sh := range s.shares {
		if sh == nil {
			continue
		}
		for _, p := range slices.Clone(sh.pages) {
			if a.Receipt == nil && p.Page == a.Page {
				p.asked[from] = asked{s.m.now.Mono, true}
				s.wakeAt(s.m.now.Mono)
				continue
			}
			if p.Page != a.Page || a.Receipt.Signer != from || a.Receipt.Page != p.Page ||
				a.Receipt.StageRef != p.StageRef || a.Receipt.Life != p.Life || a.Receipt.Range != p.Range {
				continue
			}
			known := slices.ContainsFunc(p.receipts, func(r protocol.SignedReceipt) bool { return r.Signer == from })
			if err := s.ledger.keptBy(a.Receipt.Keep, from); errors.Is(err, errUnknown) {
				s.m.send(from, &protocol.WorkRequest{Job: s.id, Known: s.known()}) // its brief has the Keep
				continue
			} else if known || err != nil {
				continue
			}
			p.receipts = append(p.receipts, *a.Receipt)
			sh.settlePage(p)
		}
	}
}
