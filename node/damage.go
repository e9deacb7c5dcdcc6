package node

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/node/api"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/dustin/go-humanize"
	"github.com/ipfs/go-cid"
)

// mendEvery is how often it is tried again to have what a user pinned and nobody served: it may be with a peer that is off
// for the night.
const mendEvery = time.Hour

// mender sees to it that what the store has found damaged comes again: what jobs need by their keepers' part in the market,
// what the user pinned from whoever has it. It remembers at most one CID a chunk of the store.
type mender struct {
	n    *Node
	more chan struct{} // something was found

	mu    sync.Mutex
	found []cid.Cid            // and not looked after yet
	lost  map[cid.Cid]struct{} // pinned by the user, and not to be had so far
}

func newMender(n *Node) *mender {
	return &mender{n: n, more: make(chan struct{}, 1), lost: make(map[cid.Cid]struct{})}
}

// add takes a damaged chunk; it never waits.
func (m *mender) add(c cid.Cid) {
	m.mu.Lock()
	m.found = append(m.found, c)
	m.mu.Unlock()
	select {
	case m.more <- struct{}{}:
	default:
	}
}

func (m *mender) work() {
	again := time.NewTicker(mendEvery)
	defer again.Stop()
	for {
		select {
		case <-m.more:
			m.mend()
		case <-again.C:
		case <-m.n.ctx.Done():
			return
		}
		m.bring()
	}
}

// mend finds out what the damaged chunks were kept for.
func (m *mender) mend() {
	m.mu.Lock()
	found := m.found
	m.found = nil
	m.mu.Unlock()
	jobs := make(map[protocol.JobID]bool)
	err := m.n.store.PinsOf(m.n.ctx, found, func(set string, root cid.Cid) {
		if id, ok := jobOfSet(set); ok {
			jobs[id] = true
		} else if set == userSet {
			m.mu.Lock()
			m.lost[root] = struct{}{}
			m.mu.Unlock()
		}
	})
	if err != nil && m.n.ctx.Err() == nil {
		m.n.log.Error("what damaged chunks were kept for can't be told; it is seen to at the next start", "error", err)
	}
	for id := range jobs {
		m.n.prep.forget(id)
		m.n.driver.post(market.Damaged{Job: id})
	}
}

// bring has what the user pinned brought again, as far as somebody has it.
func (m *mender) bring() {
	for _, root := range m.missing() {
		ctx, cancel := context.WithTimeout(m.n.ctx, mendEvery)
		err := m.n.content.fetch(ctx, []cid.Cid{root}, source{})
		cancel()
		if err != nil {
			m.n.log.Debug("what was pinned and is damaged can't be had again", "root", root, "error", err)
			continue
		}
		m.mu.Lock()
		delete(m.lost, root)
		m.mu.Unlock()
	}
}

// missing lists what is lost and still pinned.
func (m *mender) missing() (list []cid.Cid) {
	m.mu.Lock()
	lost := maps.Clone(m.lost)
	m.mu.Unlock()
	if len(lost) == 0 {
		return nil
	}
	err := m.n.store.Pinned(userSet, func(root cid.Cid) bool {
		if _, ok := lost[root]; ok {
			list = append(list, root)
			delete(lost, root)
		}
		return true
	})
	if err != nil {
		m.n.log.Warn("pins can't be read", "error", err)
		return list
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for root := range lost {
		delete(m.lost, root)
	}
	return list
}

// checkChunks says what was found of the chunk files since the start.
func (n *Node) checkChunks() api.Check {
	h := n.store.Health()
	if h.Damaged == 0 {
		return fine("chunks", "%s read to check them since the start, all right", humanize.Comma(int64(h.Scrubbed)))
	}
	c := fine("chunks", "%s found damaged since the start, and dropped", count(h.Damaged, "chunk"))
	c.Level, c.Advice = api.LevelWarning, "look after this machine's disk; what jobs need comes from other peers or is computed again"
	if lost := n.mender.missing(); len(lost) > 0 {
		c.Level = api.LevelError
		c.Detail += "; nobody near has what was pinned: " + lost[0].String()
		if len(lost) > 1 {
			c.Detail += " and " + count(uint64(len(lost)-1), "other")
		}
		c.Advice = "look after this machine's disk; `mesh add` the pinned file again, or `mesh unpin` it: meshd looks for it every hour"
	}
	return c
}
