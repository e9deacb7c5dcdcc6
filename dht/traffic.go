package dht

import (
	"maps"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// maxCounted bounds the peers and the protocols whose bytes are counted, each; what comes beyond is in the total alone.
// Peers that are gone are dropped on each upkeep, so this is the connections of one upkeepEvery: ConnHigh is less.
const maxCounted = 4096

// Traffic is bytes received and sent since the start, as payload of streams: without encryption and multiplexing.
type Traffic struct{ In, Out int64 }

// traffic counts bytes. It is libp2p's metrics.Reporter without the rates, which cost a timer and are not used.
type traffic struct {
	mu        sync.Mutex
	total     Traffic
	peers     map[peer.ID]Traffic
	protocols map[protocol.ID]Traffic
}

var _ metrics.Reporter = (*traffic)(nil)

func newTraffic() *traffic {
	return &traffic{peers: make(map[peer.ID]Traffic), protocols: make(map[protocol.ID]Traffic)}
}

func (t *traffic) add(in, out int64, proto protocol.ID, p peer.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	count(t.peers, p, in, out)
	count(t.protocols, proto, in, out)
}

func count[K comparable](m map[K]Traffic, k K, in, out int64) {
	c, known := m[k]
	if !known && len(m) >= maxCounted {
		return
	}
	c.In += in
	c.Out += out
	m[k] = c
}

// retain drops what was counted for peers that are gone.
func (t *traffic) retain(connected func(peer.ID) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.peers, func(p peer.ID, _ Traffic) bool { return !connected(p) })
}

func (t *traffic) byPeer(p peer.ID) Traffic {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.peers[p]
}

func (t *traffic) byProtocol() map[protocol.ID]Traffic {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.protocols)
}

func (t *traffic) sum() Traffic {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.total
}

// The rest is metrics.Reporter.

func (t *traffic) LogSentMessage(n int64) {
	t.mu.Lock()
	t.total.Out += n
	t.mu.Unlock()
}

func (t *traffic) LogRecvMessage(n int64) {
	t.mu.Lock()
	t.total.In += n
	t.mu.Unlock()
}

func (t *traffic) LogSentMessageStream(n int64, proto protocol.ID, p peer.ID) { t.add(0, n, proto, p) }
func (t *traffic) LogRecvMessageStream(n int64, proto protocol.ID, p peer.ID) { t.add(n, 0, proto, p) }

func stats(c Traffic) metrics.Stats { return metrics.Stats{TotalIn: c.In, TotalOut: c.Out} }

func (t *traffic) GetBandwidthForPeer(p peer.ID) metrics.Stats { return stats(t.byPeer(p)) }
func (t *traffic) GetBandwidthTotals() metrics.Stats           { return stats(t.sum()) }

func (t *traffic) GetBandwidthForProtocol(proto protocol.ID) metrics.Stats {
	return stats(t.byProtocol()[proto])
}

func (t *traffic) GetBandwidthByPeer() map[peer.ID]metrics.Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	return allStats(t.peers)
}

func (t *traffic) GetBandwidthByProtocol() map[protocol.ID]metrics.Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	return allStats(t.protocols)
}

func allStats[K comparable](m map[K]Traffic) map[K]metrics.Stats {
	out := make(map[K]metrics.Stats, len(m))
	for k, c := range m {
		out[k] = stats(c)
	}
	return out
}

func (t *traffic) Reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.total = Traffic{}
	clear(t.peers)
	clear(t.protocols)
}

// TrimIdle does nothing: counts end with their peer.
func (t *traffic) TrimIdle(time.Time) {}
