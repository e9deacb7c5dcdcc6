package dht

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// TestFloodOfStreamsIsStoppedAtTheLimit: one peer opens streams without end and never closes them; it is refused at
// its share, and others are served.
func TestFloodOfStreamsIsStoppedAtTheLimit(t *testing.T) {
	peers, _ := mesh(t, 3)
	victim, flooder, other := peers[0], peers[1], peers[2]
	held := make(chan network.Stream, 4*peerStreams)
	proto := victim.Protocol("sink/1.0.0")
	victim.Host().SetStreamHandler(proto, func(s network.Stream) { held <- s })
	refused := 0
	for range 2 * peerStreams {
		s, err := flooder.Host().NewStream(t.Context(), victim.ID(), proto)
		if err == nil {
			// The refusal shows at the first use.
			_ = s.SetDeadline(time.Now().Add(patience))
			_, err = s.Write([]byte("x"))
		}
		if err != nil {
			refused++
		}
	}
	if len(held) > peerStreams {
		t.Errorf("the victim holds %d streams of one peer, the limit is %d", len(held), peerStreams)
	}
	if refused == 0 {
		t.Error("no stream was refused")
	}
	if err := other.Probe(t.Context(), victim.ID()); err != nil {
		t.Errorf("the victim does not serve others: %v", err)
	}
}

func TestResourceLimitsCanBeBuiltForEverySize(t *testing.T) {
	for _, high := range []int{2, 192, 4096} {
		limits, err := resources(high, exchangeProtocol("test"))
		if err != nil {
			t.Errorf("%d connections: %v", high, err)
			continue
		}
		if err := limits.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestManyPeersBehindOneAddress: as many connections as are allowed in all may come from one private address at once,
// as from a laboratory behind NAT; from one public address only a few.
func TestManyPeersBehindOneAddress(t *testing.T) {
	for addr, want := range map[string]func(int) bool{
		"/ip4/10.1.2.3/tcp/1":  func(n int) bool { return n >= 32 },
		"/ip4/127.0.0.1/tcp/1": func(n int) bool { return n >= 32 },
		"/ip4/8.8.8.8/tcp/1":   func(n int) bool { return n == 8 },
	} {
		limits, err := resources(192, exchangeProtocol("test"))
		if err != nil {
			t.Fatal(err)
		}
		defer limits.Close()
		opened := 0
		for range 64 {
			c, err := limits.OpenConnection(network.DirInbound, true, multiaddr.StringCast(addr))
			if err == nil {
				defer c.Done()
				opened++
			}
		}
		if !want(opened) {
			t.Errorf("%d connections from %s", opened, addr)
		}
	}
}

func TestTCPIsDialledBeforeQUIC(t *testing.T) {
	var addrs []multiaddr.Multiaddr
	for _, ip := range []string{"/ip4/8.8.8.8", "/ip4/10.0.0.1", "/ip6/2001:4860:4860::8888"} {
		addrs = append(addrs, multiaddr.StringCast(ip+"/udp/7740/quic-v1"), multiaddr.StringCast(ip+"/tcp/7740"))
	}
	ranked := tcpFirst(addrs)
	if len(ranked) != len(addrs) {
		t.Fatalf("%d of %d addresses are left", len(ranked), len(addrs))
	}
	var lastTCP time.Duration
	for _, r := range ranked {
		if isTCP(r.Addr) {
			lastTCP = max(lastTCP, r.Delay)
		}
	}
	for _, r := range ranked {
		if isQUIC(r.Addr) && r.Delay < lastTCP+quicDelay {
			t.Errorf("%s after %v, the last TCP address after %v", r.Addr, r.Delay, lastTCP)
		}
	}
	if alone := tcpFirst(addrs[:1]); len(alone) != 1 || alone[0].Delay != 0 {
		t.Errorf("QUIC alone: %v, want at once", alone)
	}
}

func TestConfigurationFaultsAreReportedTogether(t *testing.T) {
	c := DefaultConfig()
	c.Mesh = "No Such Name"
	c.Listen = append(c.Listen, multiaddr.StringCast("/ip4/127.0.0.1/tcp/1/ws"))
	c.ConnLow, c.ConnHigh, c.TargetDegree = 10, 5, 64
	c.Bootstrap = []peer.AddrInfo{{ID: "nobody"}}
	err := c.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"mesh name", "key is missing", "listen address", "connections 10 to 5", "target degree", "bootstrap peer", "judge"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no word of %q in: %v", want, err)
		}
	}
	c = DefaultConfig()
	c.Key, c.Gossip = newKey(t), false
	if err := c.Validate(); err != nil {
		t.Errorf("default configuration with a key: %v", err)
	}
}

func TestParseAddr(t *testing.T) {
	id := idOf(t, newKey(t))
	if info, err := ParseAddr(fmt.Sprintf("/ip4/192.0.2.1/tcp/7740/p2p/%s", id)); err != nil || info.ID != id || len(info.Addrs) != 1 {
		t.Errorf("%v, %v", info, err)
	}
	for _, s := range []string{"", "192.0.2.1:7740", "/ip4/192.0.2.1/tcp/7740", "/p2p/" + id.String(), "/ip4/192.0.2.1/tcp/7740/p2p/nobody"} {
		if _, err := ParseAddr(s); err == nil || !strings.Contains(err.Error(), "mesh id") {
			t.Errorf("%q: %v, want an error that says what to type", s, err)
		}
	}
	key, _, err := crypto.GenerateSecp256k1Key(rand.Reader)
	if err == nil {
		if _, err := ParseAddr(fmt.Sprintf("/ip4/192.0.2.1/tcp/7740/p2p/%s", idOf(t, key))); !errors.Is(err, ErrKeyType) {
			t.Errorf("another kind of key: %v", err)
		}
	}
}

// TestNoListenAddressAndTakenPort: an address that is taken is an error only if none is left.
func TestNoListenAddressAndTakenPort(t *testing.T) {
	first := start(t, onLoopbackOnly(t, new(heard)))
	c := onLoopbackOnly(t, new(heard))
	c.Listen = first.Host().Addrs()
	second, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Start(); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("port taken: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	c.Listen = append(c.Listen, multiaddr.StringCast("/ip4/127.0.0.1/tcp/0"))
	if third := start(t, c); len(third.Addrs()) != 1 {
		t.Errorf("listens on %v", third.Addrs())
	}
}

// TestDiscoveryOnTheLANIsOptional: whether or not this machine has multicast, the peer starts.
func TestDiscoveryOnTheLANIsOptional(t *testing.T) {
	c := onLoopbackOnly(t, new(heard))
	c.LANDiscovery = true
	n := start(t, c)
	other := start(t, onLoopbackOnly(t, new(heard)))
	lanPeers{n}.HandlePeerFound(addrInfo(n)) // hearing oneself
	lanPeers{n}.HandlePeerFound(addrInfo(other))
	eventually(t, "the peer found is connected", func() bool { return n.Stats().Peers == 1 })
}
