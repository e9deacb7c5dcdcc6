package dht

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/x/simlibp2p"
	"github.com/marcopolo/simnet"
	"github.com/multiformats/go-multiaddr"
)

// TestMeshFormsOverSlowLinks: all peers of a mesh start at the same moment, half a world apart, with one bootstrap
// address; in simulated time, over simulated links (QUIC is what runs on them).
func TestMeshFormsOverSlowLinks(t *testing.T) {
	const count, oneWay = 20, 50 * time.Millisecond
	// A connection takes about 4 round trips; it is made to the bootstrap, then to all others; between the two lies
	// an exchange of 2. The rest is for peers that missed one another.
	const limit = 2 * (4 + 2 + 4) * 2 * oneWay
	synctest.Test(t, func(t *testing.T) {
		nw := &simnet.Simnet{LatencyFunc: simnet.StaticLatency(oneWay)}
		nw.Start()
		defer nw.Close()
		peers := make([]*Network, count)
		ears := make([]*heard, count)
		for i := range peers {
			ears[i] = new(heard)
			peers[i] = simulated(t, nw, i, ears[i], peers[0])
			defer peers[i].Close()
		}
		began := time.Now()
		for _, n := range peers {
			if err := n.Start(); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "everybody knows everybody", func() bool { return complete(peers) })
		took := time.Since(began)
		t.Logf("%d peers know each other after %v", count, took)
		if took > limit {
			t.Errorf("the mesh took %v to form, want at most %v", took, limit)
		}
		conns := 0
		for _, n := range peers {
			conns += n.Stats().Connections
		}
		t.Logf("%d connection ends, %d without doubles", conns, count*(count-1))
		began = time.Now()
		if err := peers[count-1].Announce(t.Context(), []byte("hello")); err != nil {
			t.Fatal(err)
		}
		for i, h := range ears[:count-1] {
			eventually(t, fmt.Sprintf("peer %d hears the announcement", i), func() bool { return h.has("hello") })
		}
		t.Logf("all have heard an announcement after %v", time.Since(began))
	})
}

// TestPeersThatMissedOneAnotherMeetLater: the bootstrap names nobody at first.
func TestPeersThatMissedOneAnotherMeetLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nw := &simnet.Simnet{LatencyFunc: simnet.StaticLatency(time.Millisecond)}
		nw.Start()
		defer nw.Close()
		peers := make([]*Network, 3)
		for i := range peers {
			peers[i] = simulated(t, nw, i, new(heard), peers[0])
			defer peers[i].Close()
		}
		silent := peers[0]
		silent.host.SetStreamHandler(silent.exchange, func(s network.Stream) { _ = writeRecords(s, nil); _ = s.Close() })
		for _, n := range peers {
			n.table.Close() // its look-ups would introduce them, too
			if err := n.Start(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(upkeepEvery / 2) // simulated
		if got := peers[1].presence.count(); got != 1 {
			t.Fatalf("%d peers, want the bootstrap alone", got)
		}
		silent.host.SetStreamHandler(silent.exchange, silent.answer)
		time.Sleep(2 * upkeepEvery)
		if !complete(peers) {
			t.Error("they have not met after two turns of upkeep")
		}
	})
}

// TestFullMeshTakesANewcomer: there are more peers than connections, and all have as many as they keep.
func TestFullMeshTakesANewcomer(t *testing.T) {
	const count, degree, low, high = 26, 8, 16, 18
	synctest.Test(t, func(t *testing.T) {
		nw := &simnet.Simnet{LatencyFunc: simnet.StaticLatency(10 * time.Millisecond)}
		nw.Start()
		defer nw.Close()
		peers := make([]*Network, count)
		ears := make([]*heard, count)
		for i := range peers {
			ears[i] = new(heard)
			peers[i] = simulated(t, nw, i, ears[i], peers[0], func(c *Config) {
				c.TargetDegree, c.ConnLow, c.ConnHigh, c.bucketSize = degree, low, high, 2
			})
			defer peers[i].Close()
			peers[i].table.Close() // its look-ups are most of the time this takes
		}
		last := count - 1
		for _, n := range peers[:last] {
			if err := n.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond) // simulated, like all below
		}
		time.Sleep(2 * connGrace) // surplus connections have been closed
		if err := peers[last].Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the newcomer has its degree", func() bool { return peers[last].presence.count() >= degree })
		if err := peers[last].Announce(t.Context(), []byte("hello")); err != nil {
			t.Fatal(err)
		}
		for i, h := range ears[:last] {
			eventually(t, fmt.Sprintf("peer %d hears the announcement", i), func() bool { return h.has("hello") })
		}
		ends := 0
		for _, n := range peers {
			ends += n.Stats().Connections
		}
		if mean := float64(ends) / count; mean > high {
			t.Errorf("%.1f connections a peer, want at most %d", mean, high)
		}
	})
}

func complete(peers []*Network) bool {
	for _, n := range peers {
		if n.presence.count() != len(peers)-1 {
			return false
		}
	}
	return true
}

// simulated is the i-th peer of a simulated network, not started.
func simulated(t *testing.T, nw *simnet.Simnet, i int, h *heard, bootstrap *Network, change ...func(*Config)) *Network {
	t.Helper()
	c := onLoopbackOnly(t, h)
	addr := multiaddr.StringCast(fmt.Sprintf("/ip4/%s/udp/8000/quic-v1", simnet.IntToPublicIPv4(i)))
	c.Listen = []multiaddr.Multiaddr{addr}
	if bootstrap != nil {
		c.Bootstrap = append(c.Bootstrap, addrInfo(bootstrap))
	}
	link := simnet.LinkSettings{BitsPerSecond: 100 * simlibp2p.OneMbps}
	c.hostOptions = []libp2p.Option{
		simlibp2p.QUICSimnet(nw, simnet.NodeBiDiLinkSettings{Downlink: link, Uplink: link}),
		libp2p.DisableIdentifyAddressDiscovery(), // it stalls simulated time
	}
	for _, f := range change {
		f(&c)
	}
	n, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
