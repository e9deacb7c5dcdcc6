package chunkstore

import (
	"maps"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// maxPeerStats is how many peers have figures of their own: the table is for people and metrics, and peers that come and go
// must not make it grow. The one heard of longest ago is forgotten.
const maxPeerStats = 1024

// Traffic counts what moved by the bulk protocol, with one peer or in all.
type Traffic struct {
	BytesIn, BytesOut   int64 // payload
	ChunksIn, ChunksOut int64
	Wasted              int64 // bytes received that were of no use: duplicates, and those of lying holders
	Drops               int64 // times the peer was dropped from a fetch as a holder
	Refused             int64 // streams refused
}

// Stats are the counters of an exchange since it was made.
type Stats struct {
	Total   Traffic
	Peers   map[peer.ID]Traffic
	Serving int // streams being served now
	Bitswap BitswapStats
}

// BitswapStats are the counters of bitswap, in payload.
type BitswapStats struct {
	BytesIn, BytesOut, BlocksIn, BlocksOut uint64
}

type stats struct {
	mu    sync.Mutex
	total Traffic
	peers map[peer.ID]*peerTraffic
}

type peerTraffic struct {
	Traffic
	last time.Time
}

// add changes the counters of a peer and the totals.
func (s *stats) add(p peer.ID, change func(*Traffic)) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.total)
	t := s.peers[p]
	if t == nil {
		if s.peers == nil {
			s.peers = map[peer.ID]*peerTraffic{}
		}
		if len(s.peers) >= maxPeerStats {
			s.forget()
		}
		t = &peerTraffic{}
		s.peers[p] = t
	}
	change(&t.Traffic)
	t.last = now
}

func (s *stats) forget() {
	var oldest peer.ID
	var last time.Time
	for p, t := range s.peers {
		if last.IsZero() || t.last.Before(last) {
			oldest, last = p, t.last
		}
	}
	delete(s.peers, oldest)
}

func (s *stats) sent(p peer.ID, size int) {
	s.add(p, func(t *Traffic) { t.BytesOut += int64(size); t.ChunksOut++ })
}

func (s *stats) received(p peer.ID, size int) {
	s.add(p, func(t *Traffic) { t.BytesIn += int64(size); t.ChunksIn++ })
}

func (s *stats) wasted(p peer.ID, size int) {
	s.add(p, func(t *Traffic) { t.Wasted += int64(size) })
}

func (s *stats) dropped(p peer.ID) { s.add(p, func(t *Traffic) { t.Drops++ }) }

func (s *stats) refused(p peer.ID) { s.add(p, func(t *Traffic) { t.Refused++ }) }

// Stats returns the counters.
func (x *Exchange) Stats() Stats {
	out := Stats{Peers: map[peer.ID]Traffic{}}
	x.mu.Lock()
	out.Serving = len(x.served)
	x.mu.Unlock()
	x.stats.mu.Lock()
	out.Total = x.stats.total
	for p, t := range maps.All(x.stats.peers) {
		out.Peers[p] = t.Traffic
	}
	x.stats.mu.Unlock()
	if x.swap == nil {
		return out
	}
	if swap := x.swap.peek(); swap != nil {
		if s, err := swap.Stat(); err == nil {
			out.Bitswap = BitswapStats{BytesIn: s.DataReceived, BytesOut: s.DataSent, BlocksIn: s.BlocksReceived, BlocksOut: s.BlocksSent}
		}
	}
	return out
}
