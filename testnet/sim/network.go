package sim

import (
	"time"

	"github.com/compute-mesh/mesh/market"
)

// network is what lies between the peers.
type network struct {
	side   []int           // peers on different sides of a partition don't reach one another
	oneWay map[[2]int]bool // messages from the first to the second are lost; the connection stays
	clogs  []time.Duration // traffic of a peer is held back until then
	lag    []time.Duration // more delay for what comes to or goes from a slow peer
	notice time.Duration   // at most this long after a cut the ends hear that a connection is gone
}

func (n *network) init(peers int) {
	n.side, n.clogs, n.lag = make([]int, peers), make([]time.Duration, peers), make([]time.Duration, peers)
	n.oneWay = map[[2]int]bool{}
}

// cut tells whether messages from a to b are lost.
func (n *network) cut(a, b int) bool {
	return n.side[a] != n.side[b] || len(n.oneWay) > 0 && n.oneWay[[2]int{a, b}]
}

// apart tells whether a and b have no connection.
func (n *network) apart(a, b int) bool { return n.side[a] != n.side[b] }

// delay draws the time that a message between two peers takes.
func (w *World) delay(a, b int) time.Duration {
	return w.between(w.cfg.DelayMin, w.cfg.DelayMax) + w.net.lag[a] + w.net.lag[b]
}

// carry brings something from a to b after a delay, if it can be brought then.
func (w *World) bring(a, b *Peer, d time.Duration, do func()) {
	w.After(d, func() {
		if held := max(w.net.clogs[a.Index], w.net.clogs[b.Index]); held > w.now {
			w.Counts["fault: message held back"]++
			w.bring(a, b, held-w.now+w.delay(a.Index, b.Index), do)
			return
		}
		if w.net.cut(a.Index, b.Index) {
			w.Counts["fault: message into a cut"]++
			return
		}
		if b.up {
			do()
		}
	})
}

// Partition puts each peer on a side; nil heals. Connections across go.
func (w *World) Partition(side func(i int) int) {
	for i := range w.net.side {
		w.net.side[i] = 0
		if side != nil {
			w.net.side[i] = side(i)
		}
	}
	for _, p := range w.Peers {
		for _, q := range w.near(p) {
			if p != q && p.links[q.Index] == w.net.apart(p.Index, q.Index) {
				w.After(w.between(0, w.net.notice), func() { p.look(q) })
			}
		}
	}
}

// fullMesh is up to how many peers all are connected with all; beyond, each looks for
// neighbours of its own when it starts, and connects with others when it sends to them. That
// is what libp2p does: a peer keeps one or two hundred connections.
const (
	fullMesh   = 128
	neighbours = 32
)

// near are the peers that p is connected with or would be if it could.
func (w *World) near(p *Peer) []*Peer {
	if len(w.Peers) <= fullMesh {
		return w.Peers
	}
	list := make([]*Peer, 0, len(p.links))
	for _, i := range sortedKeys(p.links) {
		list = append(list, w.Peers[i])
	}
	return list
}

// meet connects a peer that starts with those that it looks for: all that are up and in
// reach or, in a large mesh, some of them.
func (p *Peer) meet() {
	if len(p.w.Peers) <= fullMesh {
		for _, q := range p.w.Peers {
			p.connect(q)
		}
		return
	}
	for range neighbours {
		p.connect(p.w.Peers[p.w.rng.IntN(len(p.w.Peers))])
	}
}

// connect makes a new connection, if it can be made.
func (p *Peer) connect(q *Peer) {
	if q == p || !q.up || !p.up || p.w.net.apart(p.Index, q.Index) {
		return
	}
	p.look(q)
	q.links[p.Index] = false // a new connection
	q.look(p)
}

// dial connects with a peer that something is to be sent to, and tells how long that takes.
func (p *Peer) dial(q *Peer) time.Duration {
	if p.links[q.Index] || len(p.w.Peers) <= fullMesh || p == q {
		return 0
	}
	d := 2 * p.w.delay(p.Index, q.Index)
	p.later(d, func() {
		if !p.links[q.Index] {
			p.connect(q)
		}
	})
	return d
}

// look has a peer find out whether it is connected with another.
func (p *Peer) look(q *Peer) {
	if !p.up {
		return
	}
	linked := q.up && !p.w.net.apart(p.Index, q.Index)
	if linked == p.links[q.Index] {
		return
	}
	p.links[q.Index] = linked
	if linked {
		p.step(market.PeerUp{Peer: q.ID()})
	} else {
		p.step(market.PeerDown{Peer: q.ID()})
	}
}
