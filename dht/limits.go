package dht

import (
	"math"
	"net/netip"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/x/rate"
)

// What the resource manager grants follows from ConnHigh (H below) and these figures.
const (
	// streamWindow is what the multiplexer books for each open stream (its first receive window), used or not.
	streamWindow = 256 << 10
	// streamsPerConn is the mean number of open streams a connection: two of gossip, two of the DHT, one kept stream
	// of the market, one of chunks, and as many again for what is opened and closed. Limit for all: 12 x 2H.
	streamsPerConn = 12
	// connSlack: the connection manager closes surplus connections only after connGrace, and two peers that dial one
	// another at once have two. Limit for all: 2 x H.
	connSlack = 2
	// peerStreams bounds one peer's streams: 12 kept ones, and bulk transfers of up to 128 streams each way.
	peerStreams = 256
	// peerMemory bounds what one peer can make us hold: all its streams at their first window, or four that have
	// grown to the multiplexer's 16 MiB.
	peerMemory = peerStreams * streamWindow
	// peerConns is the number of addresses dialled at once (go-libp2p dials 8).
	peerConns = 8
	// exchangeStreams bounds one peer's open questions for other peers: one is enough, a second for a retry.
	exchangeStreams = 2
)

// resources builds the resource manager: a bound on everything that a remote peer can make this process allocate.
// Memory is what the streams' windows book, which is several times what they use.
func resources(connHigh int, exchange protocol.ID) (network.ResourceManager, error) {
	conns := connSlack * connHigh
	streams := conns * streamsPerConn
	all := rcmgr.ResourceLimits{
		Conns: rcmgr.LimitVal(conns), ConnsInbound: rcmgr.LimitVal(conns), ConnsOutbound: rcmgr.LimitVal(conns),
		Streams: rcmgr.LimitVal(streams), StreamsInbound: rcmgr.LimitVal(streams), StreamsOutbound: rcmgr.LimitVal(streams),
		FD:     rcmgr.LimitVal(conns),
		Memory: rcmgr.LimitVal64(max(connHigh*streamsPerConn*streamWindow, 4*peerMemory)),
	}
	// Not yet authenticated, or a protocol not yet chosen: an eighth of the whole, and never less than a small mesh
	// needs when all its peers start at once.
	newConns, newStreams := rcmgr.LimitVal(max(conns/8, 64)), rcmgr.LimitVal(max(streams/8, 512))
	arriving := rcmgr.ResourceLimits{
		Conns: newConns, ConnsInbound: newConns, ConnsOutbound: newConns,
		Streams: newStreams, StreamsInbound: newStreams, StreamsOutbound: newStreams,
		FD:     newConns,
		Memory: peerMemory,
	}
	one := rcmgr.ResourceLimits{
		Conns: peerConns, ConnsInbound: peerConns, ConnsOutbound: peerConns,
		Streams: peerStreams, StreamsInbound: peerStreams, StreamsOutbound: peerStreams,
		FD:     peerConns,
		Memory: peerMemory,
	}
	// A protocol or service may use what all or one peer may: which of them needs more is the application's affair.
	shared, each := all, one
	shared.Conns, shared.ConnsInbound, shared.ConnsOutbound, shared.FD = 0, 0, 0, 0
	each.Conns, each.ConnsInbound, each.ConnsOutbound, each.FD = 0, 0, 0, 0
	limits := rcmgr.PartialLimitConfig{
		System: all, AllowlistedSystem: all,
		Transient: arriving, AllowlistedTransient: arriving,
		PeerDefault:     one,
		ProtocolDefault: shared, ProtocolPeerDefault: each,
		ServiceDefault: shared, ServicePeerDefault: each,
		ProtocolPeer: map[protocol.ID]rcmgr.ResourceLimits{exchange: {
			Streams: 2 * exchangeStreams, StreamsInbound: exchangeStreams, StreamsOutbound: exchangeStreams,
		}},
		Conn: rcmgr.ResourceLimits{Memory: peerMemory},
	}
	// go-libp2p's own limits for identify and ping, unscaled: its base values are for the smallest machine.
	base := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&base)
	return rcmgr.NewResourceManager(
		rcmgr.NewFixedLimiter(limits.Build(base.Scale(0, 0))),
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithNetworkPrefixLimit(nearConns(conns)),
		rcmgr.WithConnRateLimiters(connRate(conns)),
	)
}

// near are the networks whose many peers are rightly seen under few addresses: this machine, private networks,
// carrier-grade and link-local ones. go-libp2p would let 8 connections in from one address there, one in 5 s.
func near() (local, private []netip.Prefix) {
	parse := func(prefixes ...string) (out []netip.Prefix) {
		for _, p := range prefixes {
			out = append(out, netip.MustParsePrefix(p))
		}
		return out
	}
	return parse("127.0.0.0/8", "::1/128"),
		parse("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "fc00::/7", "fe80::/10")
}

// nearConns lets near networks use all connections, and loopback as many as there can be.
func nearConns(conns int) (v4, v6 []rcmgr.NetworkPrefixLimit) {
	add := func(p netip.Prefix, count int) {
		if p.Addr().Is4() {
			v4 = append(v4, rcmgr.NetworkPrefixLimit{Network: p, ConnCount: count})
		} else {
			v6 = append(v6, rcmgr.NetworkPrefixLimit{Network: p, ConnCount: count})
		}
	}
	local, private := near()
	for _, p := range local {
		add(p, math.MaxInt)
	}
	for _, p := range private {
		add(p, conns)
	}
	return v4, v6
}

// connRate bounds how fast connections may arrive: without limit from this machine; from a private network all that
// may be open at once, then 10 a second; from one public address go-libp2p's own 16 at once, then one in 5 s.
func connRate(conns int) *rate.Limiter {
	const public, publicBurst, privatePerSecond = 0.2, 16, 10
	var limits []rate.PrefixLimit
	local, private := near()
	for _, p := range local {
		limits = append(limits, rate.PrefixLimit{Prefix: p})
	}
	for _, p := range private {
		limits = append(limits, rate.PrefixLimit{Prefix: p, Limit: rate.Limit{RPS: privatePerSecond, Burst: conns}})
	}
	one := rate.Limit{RPS: public, Burst: publicBurst}
	return &rate.Limiter{
		NetworkPrefixLimits: limits,
		SubnetRateLimiter: rate.SubnetLimiter{
			IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: one}},
			IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 56, Limit: one}, {PrefixLength: 48, Limit: rate.Limit{RPS: 0.5, Burst: 80}}},
			GracePeriod:      connGrace,
		},
	}
}
