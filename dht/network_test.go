package dht

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"
)

// patience bounds every wait for a condition; nothing is expected to take a tenth of it.
const patience = 30 * time.Second

// heard collects what a peer's callbacks say.
type heard struct {
	mu            sync.Mutex
	announcements []string
	events        []string
	log           bytes.Buffer
}

func (h *heard) announced() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.announcements)
}

func (h *heard) has(payload string) bool { return slices.Contains(h.announced(), payload) }

func (h *heard) logged() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.String()
}

func (h *heard) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.Write(p)
}

func newKey(t testing.TB) crypto.PrivKey {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// onLoopbackOnly is a peer of a mesh within this machine, with payloads that begin with "bad" rejected.
func onLoopbackOnly(t testing.TB, h *heard, bootstrap ...*Network) Config {
	c := DefaultConfig()
	c.Mesh = "test"
	c.Key = newKey(t)
	c.Listen = []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/0")}
	c.LANDiscovery = false
	for _, b := range bootstrap {
		c.Bootstrap = append(c.Bootstrap, addrInfo(b))
	}
	c.Judge = func(payload []byte) Verdict {
		if bytes.HasPrefix(payload, []byte("bad")) {
			return Reject
		}
		return Accept
	}
	c.OnAnnouncement = func(_ peer.ID, payload []byte) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.announcements = append(h.announcements, string(payload))
	}
	c.OnPeer = func(p peer.ID, up bool) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.events = append(h.events, fmt.Sprint(p, up))
	}
	c.Log = slog.New(slog.NewTextHandler(h, nil))
	return c
}

// addrInfo is what a person would type to reach n, before it listens, too.
func addrInfo(n *Network) peer.AddrInfo {
	addrs := n.host.Addrs()
	if len(addrs) == 0 {
		addrs = n.cfg.Listen
	}
	return peer.AddrInfo{ID: n.ID(), Addrs: addrs}
}

func start(t testing.TB, c Config) *Network {
	t.Helper()
	n, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	return n
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond) // between two looks at a condition
	}
}

// mesh starts n peers that know the first one's address only, and waits until each is connected to all.
func mesh(t testing.TB, n int) ([]*Network, []*heard) {
	t.Helper()
	var peers []*Network
	var ears []*heard
	for range n {
		h := new(heard)
		peers = append(peers, start(t, onLoopbackOnly(t, h, peers[:min(len(peers), 1)]...)))
		ears = append(ears, h)
	}
	began := time.Now()
	for i, p := range peers {
		eventually(t, fmt.Sprintf("peer %d knows %d others", i, n-1), func() bool { return p.Stats().Peers == n-1 })
	}
	t.Logf("%d peers know each other after %v", n, time.Since(began).Round(time.Millisecond))
	return peers, ears
}

func TestFivePeersThroughOneBootstrapKnowEachOther(t *testing.T) {
	peers, ears := mesh(t, 5)
	for i, n := range peers {
		eventually(t, "all neighbours are described", func() bool {
			return !slices.ContainsFunc(n.Peers(), func(p Peer) bool {
				return p.Latency == 0 || p.Agent != "meshd" || p.Addr == nil || p.Since.IsZero()
			})
		})
		eventually(t, "an event a neighbour", func() bool {
			ears[i].mu.Lock()
			defer ears[i].mu.Unlock()
			return len(ears[i].events) == 4
		})
	}
	if b := peers[0].BandwidthFor(peers[1].ID()); b.In == 0 || b.Out == 0 {
		t.Errorf("bytes to and from a neighbour: %+v", b)
	}
	if err := peers[1].Probe(t.Context(), peers[2].ID()); err != nil {
		t.Error(err)
	}
	if err := peers[1].Connect(t.Context(), addrInfo(peers[1])); !errors.Is(err, ErrSelf) {
		t.Errorf("connect to itself: %v", err)
	}
}

func TestAnnouncementReachesAllAlsoFromAPeerThatJustJoined(t *testing.T) {
	peers, ears := mesh(t, 4)
	late := new(heard)
	newcomer := start(t, onLoopbackOnly(t, late, peers[0]))
	eventually(t, "the newcomer has a peer", func() bool { return newcomer.Stats().Peers > 0 })
	if err := newcomer.Announce(t.Context(), []byte("from the newcomer")); err != nil {
		t.Fatal(err)
	}
	for i, h := range ears {
		eventually(t, fmt.Sprintf("peer %d hears it", i), func() bool { return h.has("from the newcomer") })
	}
	if err := peers[2].Announce(t.Context(), []byte("to the newcomer")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the newcomer hears", func() bool { return late.has("to the newcomer") })
	if late.has("from the newcomer") {
		t.Error("an own announcement was delivered to its sender")
	}
}

func TestAnnouncementThatIsTooLargeOrRefusedOrHasNoListener(t *testing.T) {
	peers, ears := mesh(t, 2)
	if err := peers[0].Announce(t.Context(), make([]byte, MaxAnnouncement+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("oversize: %v", err)
	}
	if err := peers[0].Announce(t.Context(), []byte("bad")); err == nil {
		t.Error("an announcement that the own judge refuses was sent")
	}
	// Past the check before sending, the receiver's own check is what is left.
	topic := peers[0].gossip.topic
	peers[0].gossip.judge = func([]byte) Verdict { return Accept }
	for _, payload := range []string{"bad news", strings.Repeat("x", MaxAnnouncement+1)} {
		_ = topic.Publish(t.Context(), []byte(payload)) // the oversize one fails here, too
	}
	if err := peers[0].Announce(t.Context(), []byte("good news")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the good news arrives", func() bool { return ears[1].has("good news") })
	eventually(t, "the bad news is rejected", func() bool { return peers[1].Stats().AnnouncementsRejected > 0 })
	if got := ears[1].announced(); len(got) != 1 {
		t.Errorf("delivered: %q", got)
	}

	alone := start(t, onLoopbackOnly(t, new(heard)))
	if err := alone.Announce(t.Context(), []byte("anybody?")); !errors.Is(err, ErrNoPeers) {
		t.Errorf("alone: %v", err)
	}
}

func TestPeerWithDeadBootstrapComesBackThroughPeersItMet(t *testing.T) {
	peers, _ := mesh(t, 3)
	c := onLoopbackOnly(t, new(heard), peers[0])
	c.PeersFile = filepath.Join(t.TempDir(), "peers")
	back, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := back.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it knows all", func() bool { return back.Stats().Peers == 3 })
	// Written while it runs, so that it survives kill -9.
	eventually(t, "the file has all", func() bool {
		text, _ := os.ReadFile(c.PeersFile)
		return bytes.Count(text, []byte("\n")) >= 3
	})
	if err := back.Close(); err != nil {
		t.Fatal(err)
	}
	if err := peers[0].Close(); err != nil {
		t.Fatal(err)
	}
	back = start(t, c)
	eventually(t, "it is back without its bootstrap", func() bool { return back.Stats().Peers == 2 })
}

func TestPeerThatRestartsOnItsPortIsMetAgain(t *testing.T) {
	h := new(heard)
	first := start(t, onLoopbackOnly(t, h))
	c := onLoopbackOnly(t, new(heard))
	second, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	info := addrInfo(second)
	if err := first.Connect(t.Context(), info); err != nil {
		t.Fatal(err)
	}
	eventually(t, "connected", func() bool { return first.Stats().Peers == 1 })
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "lost", func() bool { return first.Stats().Peers == 0 })
	if err := first.Probe(t.Context(), second.ID()); err == nil {
		t.Error("probe of a dead peer succeeds")
	}
	c.Listen = info.Addrs // the second one itself dials nobody
	start(t, c)
	eventually(t, "met again", func() bool { return first.Stats().Peers == 1 })
	eventually(t, "events alternate", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.events) == 3 && strings.HasSuffix(h.events[0], "true") && strings.HasSuffix(h.events[1], "false")
	})
}

func TestPeerOfAnotherMeshIsRefusedWithAClearErrorAtBothEnds(t *testing.T) {
	h1, h2 := new(heard), new(heard)
	const bitswap = "/ipfs/bitswap/1.2.0" // both serve guests, which does not make them one another's guests
	c := onLoopbackOnly(t, h1)
	c.Guests = append(c.Guests, bitswap)
	one := start(t, c)
	c = onLoopbackOnly(t, h2)
	c.Mesh, c.Guests = "other", one.cfg.Guests
	other := start(t, c)
	for _, n := range []*Network{one, other} {
		n.Host().SetStreamHandler(bitswap, func(s network.Stream) { _ = s.Reset() })
	}
	err := one.Connect(t.Context(), addrInfo(other))
	var stranger *OtherMeshError
	if !errors.Is(err, ErrOtherMesh) || !errors.As(err, &stranger) || stranger.Mesh != "other" {
		t.Fatalf("connect: %v", err)
	}
	if !strings.Contains(err.Error(), `mesh "other"`) {
		t.Errorf("the error does not name the other mesh: %v", err)
	}
	eventually(t, "both ends say so", func() bool {
		return strings.Contains(h1.logged(), `mesh \"other\"`) && strings.Contains(h2.logged(), `mesh \"test\"`)
	})
	eventually(t, "both ends have parted", func() bool {
		return one.Stats().Connections == 0 && other.Stats().Connections == 0
	})
	if one.Stats().Peers+other.Stats().Peers+len(h1.events)+len(h2.events) != 0 {
		t.Error("a stranger was counted as a peer")
	}
}

// A peer of this mesh that speaks only another version of a protocol is refused, with both versions named; one that speaks both is a peer.
func TestPeerOfAnotherVersionIsRefusedByName(t *testing.T) {
	const v1, v2 = "/mesh/test/swarm/1.0.0", "/mesh/test/swarm/2.0.0"
	ignore := func(s network.Stream) { _ = s.Reset() }
	h := new(heard)
	old, newer, both := start(t, onLoopbackOnly(t, h)), start(t, onLoopbackOnly(t, new(heard))), start(t, onLoopbackOnly(t, new(heard)))
	old.Host().SetStreamHandler(v1, ignore)
	newer.Host().SetStreamHandler(v2, ignore)
	both.Host().SetStreamHandler(v1, ignore)
	both.Host().SetStreamHandler(v2, ignore)
	for _, n := range []*Network{newer, both} {
		if err := n.Connect(t.Context(), addrInfo(old)); n == both && err != nil {
			t.Errorf("a peer of both versions: %v", err)
		} else if n == newer && (!errors.Is(err, ErrOtherVersion) || !strings.Contains(err.Error(), "version \"1.0.0\" of the swarm protocol, this meshd version 2.0.0")) {
			t.Errorf("a peer of another version: %v", err)
		}
	}
	eventually(t, "the other end says so, too", func() bool { return strings.Contains(h.logged(), `version \"2.0.0\" of the swarm protocol`) })
	if _, err := newer.ask(t.Context(), old.ID()); err == nil && old.presence.isUp(newer.ID()) {
		t.Error("a peer of another version is let in because it asks for others")
	}
	// The peer of both versions may meet the newer one, too: what counts is what each is to the old one.
	eventually(t, "one peer is left", func() bool {
		return old.presence.isUp(both.ID()) && !old.presence.isUp(newer.ID()) && !newer.presence.isUp(old.ID())
	})
}

func TestPeerThatComesBackUnderAnotherMeshNameIsAPeerNoMore(t *testing.T) {
	h := new(heard)
	n := start(t, onLoopbackOnly(t, h))
	c := onLoopbackOnly(t, new(heard))
	turncoat, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := turncoat.Start(); err != nil {
		t.Fatal(err)
	}
	if err := n.Connect(t.Context(), addrInfo(turncoat)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "connected", func() bool { return n.Stats().Peers == 1 })
	c.Listen, c.Mesh = turncoat.Host().Addrs(), "other"
	if err := turncoat.Close(); err != nil {
		t.Fatal(err)
	}
	start(t, c)
	eventually(t, "it is dialled again, and recognised", func() bool { return strings.Contains(h.logged(), `mesh \"other\"`) })
	eventually(t, "it is no peer", func() bool { return n.Stats().Peers == 0 })
}

func TestStrangerIsDismissedAndGuestStays(t *testing.T) {
	c := onLoopbackOnly(t, new(heard))
	c.Guests = append(c.Guests, "/ipfs/bitswap/1.2.0")
	n := start(t, c)
	for _, guest := range []bool{true, false} {
		h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableMetrics())
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		if guest {
			h.SetStreamHandler("/ipfs/bitswap/1.2.0", func(s network.Stream) { s.Reset() })
		}
		info := peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}
		err = n.Connect(t.Context(), info)
		if !errors.Is(err, ErrOtherMesh) || !strings.Contains(err.Error(), "no mesh protocol") {
			t.Errorf("connect: %v", err)
		}
		if !guest {
			eventually(t, "the stranger is gone", func() bool { return n.host.Network().Connectedness(h.ID()) != network.Connected })
			eventually(t, "the guest is there", func() bool { return n.Stats().Connections == 1 })
		}
	}
	if n.Stats().Peers != 0 {
		t.Error("a guest was counted as a peer")
	}
}

func TestOnlyEd25519PeersAreAdmitted(t *testing.T) {
	n := start(t, onLoopbackOnly(t, new(heard)))
	for _, kind := range []int{crypto.RSA, crypto.Secp256k1, crypto.ECDSA} {
		key, _, err := crypto.GenerateKeyPairWithReader(kind, 2048, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		h, err := libp2p.New(libp2p.Identity(key), libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableMetrics())
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		_ = h.Connect(t.Context(), addrInfo(n)) // may see the refusal only later
		eventually(t, "refused", func() bool { return len(h.Network().Conns()) == 0 && n.Stats().Connections == 0 })
		if err := n.Connect(t.Context(), peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}); !errors.Is(err, ErrKeyType) {
			t.Errorf("%s: %v", key.Type(), err)
		}
	}
	c := DefaultConfig()
	c.Key, _, _ = crypto.GenerateSecp256k1Key(rand.Reader)
	if _, err := New(c); err == nil {
		t.Error("a peer with a key that is not Ed25519 was made")
	}
}

func TestProvideAndFind(t *testing.T) {
	peers, _ := mesh(t, 4)
	hash, err := multihash.Sum([]byte("content"), multihash.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	c := cid.NewCidV1(cid.Raw, hash)
	for _, p := range peers {
		eventually(t, "the table is full", func() bool { return p.Stats().TableSize == 3 })
	}
	if err := peers[1].Provide(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	found, err := peers[3].FindProviders(t.Context(), c, 1)
	if err != nil || len(found) != 1 || found[0].ID != peers[1].ID() || len(found[0].Addrs) == 0 {
		t.Fatalf("found %v, %v", found, err)
	}
	if found, err := peers[1].FindProviders(t.Context(), c, 1); err != nil || len(found) != 0 {
		t.Errorf("the provider finds %v, %v", found, err)
	}
	alone := start(t, onLoopbackOnly(t, new(heard)))
	if err := alone.Provide(t.Context(), c); !errors.Is(err, ErrNoPeers) {
		t.Errorf("alone: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if found, _ := alone.FindProviders(ctx, c, 1); len(found) != 0 {
		t.Errorf("alone, found %v", found)
	}
}
