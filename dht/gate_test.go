package dht

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// gated is a peer with a gate that refuses these from its start.
func gated(t *testing.T, refused []peer.ID, bootstrap ...*Network) *Network {
	t.Helper()
	c := onLoopbackOnly(t, new(heard), bootstrap...)
	var err error
	if c.Gate, err = NewGate(refused...); err != nil {
		t.Fatal(err)
	}
	return start(t, c)
}

// others are the peers that n is connected to, by its own word and by its host's.
func others(n *Network) (list []peer.ID) {
	for _, p := range n.Peers() {
		list = append(list, p.ID)
	}
	for _, p := range n.host.Network().Peers() {
		if !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	return list
}

func TestAMeshPartsAndHeals(t *testing.T) {
	var peers []*Network
	for range 4 {
		peers = append(peers, gated(t, nil, peers[:min(len(peers), 1)]...))
	}
	eventually(t, "all know all", func() bool { return complete(peers) })
	left, right := peers[:2], peers[2:]
	ids := func(list []*Network) (out []peer.ID) {
		for _, n := range list {
			out = append(out, n.ID())
		}
		return out
	}
	for _, n := range left {
		if err := n.Refuse(ids(right)); err != nil {
			t.Fatal(err)
		}
		for _, p := range right {
			if slices.Contains(others(n), p.ID()) {
				t.Error("connected when Refuse has returned")
			}
		}
	}
	// One side's gate is enough, whoever dials; the other side's only spares the attempts.
	for _, pair := range [][2]*Network{{left[0], right[0]}, {right[1], left[1]}} {
		err := pair[0].Connect(t.Context(), addrInfo(pair[1]))
		if err == nil && pair[0].Probe(t.Context(), pair[1].ID()) == nil {
			t.Error("a refused peer was reached")
		}
	}
	for _, n := range right {
		if err := n.Refuse(ids(left)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "each side knows itself alone", func() bool {
		return !slices.ContainsFunc(peers, func(n *Network) bool { return len(others(n)) != 1 })
	})
	late := gated(t, ids(left), peers[0], peers[2])
	eventually(t, "who comes later finds the side that it does not refuse", func() bool { return len(others(late)) == 2 })
	if got := others(late); slices.Contains(got, left[0].ID()) || slices.Contains(got, left[1].ID()) {
		t.Errorf("it is connected to %v", got)
	}

	peers = append(peers, late)
	began := time.Now()
	for _, n := range peers {
		if err := n.Refuse(nil); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all know all again", func() bool { return complete(peers) })
	t.Logf("healed after %v", time.Since(began).Round(time.Millisecond))
	if took := time.Since(began); took > redialChosen {
		t.Errorf("healed after %v: the waits of before were kept", took)
	}
}

// A connection that the gate let through in the moment before it was told is closed when it is seen.
func TestGuardClosesWhatSlippedThrough(t *testing.T) {
	a, b := gated(t, nil), gated(t, nil)
	if err := a.Connect(t.Context(), addrInfo(b)); err != nil {
		t.Fatal(err)
	}
	conns := a.host.Network().ConnsToPeer(b.ID())
	if _, err := a.cfg.Gate.set([]peer.ID{b.ID()}); err != nil { // without what Refuse does beside
		t.Fatal(err)
	}
	for _, c := range conns {
		a.cfg.Gate.guard().Connected(a.host.Network(), c)
	}
	eventually(t, "it is closed", func() bool { return a.host.Network().Connectedness(b.ID()) != network.Connected })
}

func TestWhoHasNoGateRefusesNobody(t *testing.T) {
	peers, _ := mesh(t, 2)
	if err := peers[0].Refuse([]peer.ID{peers[1].ID()}); !errors.Is(err, ErrNoGate) {
		t.Errorf("%v", err)
	}
	if got := others(peers[0]); len(got) != 1 {
		t.Errorf("connected to %v", got)
	}
	if _, err := NewGate(make([]peer.ID, MaxRefused+1)...); err == nil {
		t.Error("too many were taken")
	}
}
