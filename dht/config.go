package dht

import (
	"errors"
	"fmt"
	"log/slog"
	"regexp"

	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"
)

// DefaultPort is where a peer listens, TCP and UDP, unless told otherwise.
const DefaultPort = 7740

// MaxBootstrap bounds Config.Bootstrap: each address is dialled for ever, so the list is one that a person wrote.
const MaxBootstrap = 64

var meshName = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)

// Config says how a peer joins a mesh. Start from DefaultConfig, without which it is not valid; Key must be given.
type Config struct {
	// Mesh is the mesh's name, [a-z0-9-]{1,32}. It is part of every protocol ID, of the gossip topic and of the
	// service name on the LAN, so that peers of two meshes share no protocol. Default "default".
	Mesh string
	// Key is the peer's identity. Only Ed25519 is accepted: here, and of other peers.
	Key crypto.PrivKey
	// Listen are the addresses to listen on; /tcp/N and /udp/N/quic-v1 are understood. Empty: the peer only dials.
	// Default: DefaultPort on all interfaces, IPv4 and IPv6, TCP and QUIC. An address that cannot be had (no IPv6,
	// say) is left out, as long as one can.
	Listen []multiaddr.Multiaddr
	// Bootstrap are peers to join through. They are dialled until reached, and again for ever when lost.
	Bootstrap []peer.AddrInfo
	// PeersFile is where addresses of peers met are remembered, so that a restarted peer finds the mesh without its
	// bootstrap. At most 100 KiB. Empty: nothing is remembered.
	PeersFile string
	// LANDiscovery finds peers of the same mesh by multicast DNS. A network without multicast is no error.
	LANDiscovery bool

	// TargetDegree is the number of connected peers below which new ones are looked for: every peer knows every
	// other in a mesh of up to TargetDegree+1. Range 1..ConnLow, default 64.
	TargetDegree int
	// ConnLow, ConnHigh: above ConnHigh connections the least useful are closed until ConnLow are left. Range
	// 52 <= ConnLow < ConnHigh <= 4096: the Kademlia table protects two buckets of 20 peers, gossip up to 12, and where
	// all connections are protected no newcomer gets in. Default 160, 192. All other resource limits follow from ConnHigh.
	ConnLow, ConnHigh int
	// Guests are protocols outside the mesh (an IPFS node's bitswap, say) whose speakers may stay connected. They
	// are not peers: no OnPeer, not in Peers. Default none: who does not speak this mesh's protocol is disconnected.
	Guests []protocol.ID

	// Gossip switches announcements on; Judge must then be given. Default true.
	Gossip bool
	// Judge gives the verdict on an announcement that arrived, before it is forwarded or delivered; own ones pass it
	// too. It is called on up to judgeConcurrency goroutines at once and must return within judgeTimeout.
	Judge func(payload []byte) Verdict
	// OnAnnouncement gets each accepted announcement of others, one at a time; from is the neighbour that sent it,
	// not its author. It must return soon: beyond announcementQueue waiting ones, more are dropped and counted.
	OnAnnouncement func(from peer.ID, payload []byte)
	// OnPeer is told of each peer of this mesh that is connected (up) or lost. Calls come one at a time; for one peer
	// they alternate, beginning with up; a reconnection that was too quick to see is told as lost, then up. Close ends
	// the calls without telling of anybody as lost.
	OnPeer func(p peer.ID, up bool)

	// Gate, if there is one, refuses peers; (*Network).Refuse tells it which. For tests of meshes that part and heal.
	// Default none: nobody can make this peer refuse others.
	Gate *Gate

	// Agent is what others see as this peer's software. Default "meshd".
	Agent string
	// Log gets what a person who runs the peer may want to know. Default: nothing is logged.
	Log *slog.Logger

	// For tests: hostOptions are added last to the libp2p host (simulated networks); bucketSize is the Kademlia
	// table's (small meshes that are like large ones).
	hostOptions []libp2p.Option
	bucketSize  int
}

// protectedConns is how many connections the Kademlia table and gossip keep from being closed as surplus.
func (c Config) protectedConns() int { return 2*c.bucketSize + pubsub.GossipSubDhi }

// DefaultConfig returns the configuration of a peer on the open network, without a key, which the caller must set,
// and with Gossip on, which needs a Judge.
func DefaultConfig() Config {
	var listen []multiaddr.Multiaddr
	for _, ip := range []string{"/ip4/0.0.0.0", "/ip6/::"} {
		listen = append(listen,
			multiaddr.StringCast(fmt.Sprintf("%s/tcp/%d", ip, DefaultPort)),
			multiaddr.StringCast(fmt.Sprintf("%s/udp/%d/quic-v1", ip, DefaultPort)))
	}
	return Config{
		Mesh:         "default",
		Listen:       listen,
		LANDiscovery: true,
		TargetDegree: 64,
		ConnLow:      160,
		ConnHigh:     192,
		Gossip:       true,
		Agent:        "meshd",
		Log:          slog.New(slog.DiscardHandler),
		bucketSize:   20, // Kademlia's k: that all of a bucket's peers fail within an hour is unlikely
	}
}

// Validate reports every fault of the configuration at once.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("dht: config: "+format, args...)) }
	if !meshName.MatchString(c.Mesh) {
		fault("mesh name %q: want 1 to 32 of a-z, 0-9 and '-'", c.Mesh)
	}
	switch {
	case c.Key == nil:
		fault("key is missing")
	case c.Key.Type() != crypto.Ed25519:
		fault("key is %s: want Ed25519", c.Key.Type())
	}
	for _, a := range c.Listen {
		if !isTCP(a) && !isQUIC(a) {
			fault("listen address %s: want /tcp/N or /udp/N/quic-v1", a)
		}
	}
	if len(c.Bootstrap) > MaxBootstrap {
		fault("%d bootstrap peers: want at most %d", len(c.Bootstrap), MaxBootstrap)
	}
	for _, b := range c.Bootstrap {
		if !isEd25519(b.ID) || len(b.Addrs) == 0 {
			fault("bootstrap peer %q: want an Ed25519 peer ID and an address", b.ID)
		}
	}
	if least := c.protectedConns(); c.ConnLow < least || c.ConnHigh <= c.ConnLow || c.ConnHigh > 4096 {
		fault("connections %d to %d: want %d <= low < high <= 4096", c.ConnLow, c.ConnHigh, least)
	}
	if c.bucketSize < 1 {
		fault("not made from DefaultConfig")
	}
	if c.TargetDegree < 1 || c.TargetDegree > c.ConnLow {
		fault("target degree %d: want 1 to %d, the low connection limit", c.TargetDegree, c.ConnLow)
	}
	if c.Gossip && c.Judge == nil {
		fault("gossip needs a judge of announcements")
	}
	return errors.Join(faults...)
}

// ParseAddr reads an address as meshd prints it, /ip4/192.0.2.1/tcp/7740/p2p/12D3..., also with a name (/dns4/...).
func ParseAddr(s string) (peer.AddrInfo, error) {
	info, err := peer.AddrInfoFromString(s)
	if err != nil {
		return peer.AddrInfo{}, fmt.Errorf("dht: address %q: %w; want /ip4/.../tcp/.../p2p/ID as `mesh id` prints it", s, err)
	}
	if len(info.Addrs) == 0 {
		return peer.AddrInfo{}, fmt.Errorf("dht: address %q: only a peer ID; want /ip4/.../tcp/.../p2p/ID as `mesh id` prints it", s)
	}
	if !isEd25519(info.ID) {
		return peer.AddrInfo{}, fmt.Errorf("dht: address %q: %w", s, ErrKeyType)
	}
	return *info, nil
}
