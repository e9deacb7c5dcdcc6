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
		for _, q := range w.Peers {
			if p != q && p.links[q.Index] == w.net.apart(p.Index, q.Index) {
				w.After(w.between(0, w.net.notice), func() { p.look(q) })
			}
		}
	}
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
