package dht

import (
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

const (
	// connGrace is how long a new connection is safe from the connection manager.
	connGrace = 20 * time.Second
	// dialTimeout bounds one attempt to reach a peer, all its addresses and the handshakes included.
	dialTimeout = 10 * time.Second
	// quicDelay is how much later than the last TCP address a peer's QUIC addresses are tried: long enough for a TCP
	// and security handshake over 200 ms of round trip.
	quicDelay = 600 * time.Millisecond
)

// newHost makes the libp2p host, which does not listen yet: who connects sees every protocol from the first moment.
// Relays, hole punching and AutoNAT belong here once peers behind NAT are to be reached from outside.
func newHost(cfg Config, bytes *traffic) (host.Host, error) {
	limits, err := resources(cfg.ConnHigh, exchangeProtocol(cfg.Mesh))
	if err != nil {
		return nil, fmt.Errorf("dht: resource limits: %w", err)
	}
	conns, err := connmgr.NewConnManager(cfg.ConnLow, cfg.ConnHigh, connmgr.WithGracePeriod(connGrace))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("dht: connection limits: %w", err), limits.Close())
	}
	options := append([]libp2p.Option{
		libp2p.Identity(cfg.Key),
		libp2p.NoListenAddrs,
		libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()),
		libp2p.Transport(libp2pquic.NewTransport),
		// TLS first: AES-GCM in hardware costs a fraction of Noise's ChaCha20 for bulk data.
		libp2p.Security(libp2ptls.ID, libp2ptls.New),
		libp2p.Security(noise.ID, noise.New),
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.SwarmOpts(swarm.WithDialRanker(tcpFirst)),
		libp2p.WithDialTimeout(dialTimeout),
		libp2p.ConnectionGater(gater{cfg.Gate}),
		libp2p.ConnectionManager(conns),
		libp2p.ResourceManager(limits),
		libp2p.BandwidthReporter(bytes),
		libp2p.UserAgent(cfg.Agent),
		libp2p.ProtocolVersion("mesh/1"),
		libp2p.DisableRelay(),
		libp2p.DisableMetrics(),
		libp2p.Ping(true),
	}, cfg.hostOptions...)
	h, err := libp2p.New(options...)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("dht: host: %w", err), conns.Close(), limits.Close())
	}
	if cfg.Gate != nil {
		h.Network().Notify(cfg.Gate.guard())
	}
	return h, nil
}

// tcpFirst ranks a peer's addresses: TCP at once, QUIC only after quicDelay, because QUIC costs 3 times the CPU for
// each byte. An address filter would do the same but lose QUIC where TCP does not get through.
func tcpFirst(addrs []multiaddr.Multiaddr) []network.AddrDelay {
	var first, quic []multiaddr.Multiaddr
	for _, a := range addrs {
		if isQUIC(a) {
			quic = append(quic, a)
		} else {
			first = append(first, a)
		}
	}
	ranked := swarm.DefaultDialRanker(first)
	var delay time.Duration
	for _, r := range ranked {
		delay = max(delay, r.Delay+quicDelay)
	}
	for _, r := range swarm.DefaultDialRanker(quic) {
		ranked = append(ranked, network.AddrDelay{Addr: r.Addr, Delay: r.Delay + delay})
	}
	return ranked
}

// gater admits peers whose identity is an Ed25519 key and that the gate, if there is one, does not refuse.
type gater struct{ gate *Gate }

func (g gater) InterceptPeerDial(p peer.ID) bool                              { return g.admits(p) }
func (gater) InterceptAddrDial(peer.ID, multiaddr.Multiaddr) bool             { return true }
func (gater) InterceptAccept(network.ConnMultiaddrs) bool                     { return true }
func (gater) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

func (g gater) InterceptSecured(_ network.Direction, p peer.ID, _ network.ConnMultiaddrs) bool {
	return g.admits(p)
}

func (g gater) admits(p peer.ID) bool { return isEd25519(p) && !g.gate.refuses(p) }

// isEd25519 tells whether the ID is that of an Ed25519 key; such IDs contain the key.
func isEd25519(p peer.ID) bool {
	key, err := p.ExtractPublicKey()
	return err == nil && key.Type() == crypto.Ed25519
}

func isTCP(a multiaddr.Multiaddr) bool {
	_, err := a.ValueForProtocol(multiaddr.P_TCP)
	return err == nil && len(a.Protocols()) == 2
}

func isQUIC(a multiaddr.Multiaddr) bool {
	_, err := a.ValueForProtocol(multiaddr.P_QUIC_V1)
	return err == nil
}

// onLoopback tells whether the address means the machine it is used on.
func onLoopback(a multiaddr.Multiaddr) bool { return manet.IsIPLoopback(a) }

// dialable cuts a list of addresses from elsewhere down to what may be dialled: at most maxAddrs, none of this
// machine's own unless the source is on this machine.
func dialable(addrs []multiaddr.Multiaddr, sourceIsLocal bool) []multiaddr.Multiaddr {
	out := make([]multiaddr.Multiaddr, 0, min(len(addrs), maxAddrs))
	for _, a := range addrs {
		if len(out) < maxAddrs && len(a.Bytes()) <= maxAddrBytes && (sourceIsLocal || !onLoopback(a)) {
			out = append(out, a)
		}
	}
	return out
}

// exchangeProtocol is spoken by every peer of the mesh and by nobody else: it is also how they know one another.
func exchangeProtocol(mesh string) protocol.ID { return protocol.ID("/mesh/" + mesh + "/peers/1.0.0") }
