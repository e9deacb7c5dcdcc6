package node

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// askKeepers is how many peers are asked for a job at a time, and findWait how long the first of them have before
	// the next are asked too.
	askKeepers = 8
	findWait   = 2 * time.Second
	// findSlack is how long the others have once one keeper has answered: peers that are up answer within a round trip,
	// and the first to answer may be the one that knows least.
	findSlack = 250 * time.Millisecond
)

// find gives the best view of a job that can be had: this peer's own where it keeps the job, else a keeper's, else what
// anybody knows. It is nil where nobody near knows the job.
func (n *Node) find(ctx context.Context, id protocol.JobID) (*view, error) {
	own, err := n.report(ctx, id)
	if err != nil {
		return nil, err
	}
	if own != nil && own.Keeper {
		return &view{report: *own}, nil
	}
	tried := map[protocol.PeerID]bool{n.home.peer: true}
	var best *view
	if own != nil {
		best = &view{report: *own}
	}
	for _, candidates := range []func() []protocol.PeerID{
		func() []protocol.PeerID { return n.keepersHeardOf(ctx, id, own) },
		func() []protocol.PeerID { return n.providers(ctx, id.CID(), askProviders) },
		n.neighbours,
	} {
		list := slices.DeleteFunc(candidates(), func(p protocol.PeerID) bool { return tried[p] })
		for len(list) > 0 {
			k := min(askKeepers, len(list))
			for _, p := range list[:k] {
				tried[p] = true
			}
			if found := n.askAll(ctx, list[:k], id); found != nil && (best == nil || found.knowsMore(best)) {
				best = found
			}
			if best != nil && best.Keeper {
				return best, nil
			}
			list = list[k:]
		}
	}
	return best, ctx.Err()
}

// keepersHeardOf lists the keepers of a job that this peer has heard of: as a member, or by an announcement.
func (n *Node) keepersHeardOf(ctx context.Context, id protocol.JobID, own *report) (list []protocol.PeerID) {
	if own != nil {
		for _, text := range own.Keepers {
			if p, err := peer.Decode(text); err == nil {
				list = append(list, p)
			}
		}
	}
	_ = n.driver.ask(ctx, func(m machine) {
		for _, a := range m.Announced() {
			if a.Job != id {
				continue
			}
			for _, k := range a.Keepers {
				if !slices.Contains(list, k.Peer) {
					list = append(list, k.Peer)
				}
			}
		}
	})
	return list
}

// askAll asks peers at once, and gives the view that knows most of those that come in time. A keeper's that the job has
// ended is final, and waits for no other.
func (n *Node) askAll(ctx context.Context, peers []protocol.PeerID, id protocol.JobID) (best *view) {
	ctx, cancel := context.WithTimeout(ctx, findWait)
	defer cancel()
	views := make(chan *view, len(peers))
	var wg sync.WaitGroup
	for _, p := range peers {
		wg.Go(func() {
			if r, err := n.query.status(ctx, p, id); err == nil {
				views <- &view{*r, p}
			}
		})
	}
	go func() { wg.Wait(); close(views) }()
	var slack <-chan time.Time
	for {
		select {
		case v, more := <-views:
			if !more {
				return best
			}
			if best == nil || v.knowsMore(best) {
				best = v
			}
			if best.Keeper && best.ended() {
				return best
			}
			if best.Keeper && slack == nil {
				slack = time.After(findSlack)
			}
		case <-slack:
			return best
		}
	}
}

// knowsMore tells whether a view is the better one to show: a keeper's before another's, then of an ended job, then of
// more tasks done.
func (v *view) knowsMore(than *view) bool {
	if v.Keeper != than.Keeper {
		return v.Keeper
	}
	if v.ended() != than.ended() {
		return v.ended()
	}
	return v.done() > than.done()
}

// source is where chunks of a job that a view shows are to be had: from who gave the view, then from the job's keepers.
func (n *Node) source(id protocol.JobID, v *view) source {
	s := source{job: id}
	if v == nil {
		return s
	}
	if v.peer != "" {
		s.from = append(s.from, v.peer)
	}
	for _, text := range v.Keepers {
		if p, err := peer.Decode(text); err == nil && p != n.home.peer && !slices.Contains(s.from, p) {
			s.from = append(s.from, p)
		}
	}
	return s
}

// workers asks the peers near what they do for a job.
func (n *Node) workers(ctx context.Context, id protocol.JobID) map[protocol.PeerID]*report {
	near := n.neighbours()
	ctx, cancel := context.WithTimeout(ctx, findWait)
	defer cancel()
	found := make(map[protocol.PeerID]*report)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, p := range near[:min(len(near), askNeighbours)] {
		wg.Go(func() {
			if r, err := n.query.status(ctx, p, id); err == nil {
				mu.Lock()
				defer mu.Unlock()
				found[p] = r
			}
		})
	}
	wg.Wait()
	return found
}

// decodePeer reads a peer's ID; empty: it is none.
func decodePeer(text string) protocol.PeerID {
	p, err := peer.Decode(text)
	if err != nil {
		return ""
	}
	return p
}
