package dht

import (
	"cmp"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"
)

// Peer describes a connected peer of this mesh.
type Peer struct {
	ID      peer.ID
	Addr    multiaddr.Multiaddr // where the connection goes
	Inbound bool                // the other side has dialled
	Since   time.Time           // start of the oldest connection
	Latency time.Duration       // round trip, smoothed; 0: not measured yet
	Agent   string              // its software, as it says: escape it before printing; empty in the first moments
	Bytes   Traffic
}

// Peers lists the connected peers of this mesh, by ID.
func (n *Network) Peers() []Peer {
	var out []Peer
	for _, p := range n.presence.peers() {
		conns := n.host.Network().ConnsToPeer(p)
		if len(conns) == 0 {
			continue
		}
		oldest := slices.MinFunc(conns, func(a, b network.Conn) int { return a.Stat().Opened.Compare(b.Stat().Opened) })
		out = append(out, Peer{
			ID:      p,
			Addr:    oldest.RemoteMultiaddr(),
			Inbound: oldest.Stat().Direction == network.DirInbound,
			Since:   oldest.Stat().Opened,
			Latency: n.host.Peerstore().LatencyEWMA(p),
			Agent:   agentOf(n.host, p),
			Bytes:   n.traffic.byPeer(p),
		})
	}
	slices.SortFunc(out, func(a, b Peer) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// Stats are counters since the start, and levels of the moment.
type Stats struct {
	Peers       int // connected peers of this mesh
	Connections int // all connections, of guests and of peers that are leaving too
	TableSize   int // peers in the Kademlia table
	Bytes       Traffic
	Protocols   map[protocol.ID]Traffic

	AnnouncementsDelivered   int64 // accepted, own ones included
	AnnouncementsRejected    int64 // refused or ignored by the Judge, or not judged for overload
	AnnouncementsDuplicate   int64
	AnnouncementsDropped     int64 // messages not sent because a peer's queue was full
	AnnouncementsUndelivered int64 // lost because OnAnnouncement was too slow
}

// Stats returns the counters.
func (n *Network) Stats() Stats {
	s := Stats{
		Peers:       n.presence.count(),
		Connections: len(n.host.Network().Conns()),
		TableSize:   n.table.RoutingTable().Size(),
		Bytes:       n.traffic.sum(),
		Protocols:   n.traffic.byProtocol(),
	}
	if n.gossip != nil {
		c := &n.gossip.counters
		s.AnnouncementsDelivered = c.delivered.Load()
		s.AnnouncementsRejected = c.rejected.Load()
		s.AnnouncementsDuplicate = c.duplicate.Load()
		s.AnnouncementsDropped = c.dropped.Load()
		s.AnnouncementsUndelivered = c.undelivered.Load()
	}
	return s
}

// BandwidthFor is what was exchanged with p since its connection began.
func (n *Network) BandwidthFor(p peer.ID) Traffic { return n.traffic.byPeer(p) }
