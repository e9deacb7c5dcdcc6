package dht

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

func TestKnownPeersAreBoundedAndTheNewestAreKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "peers")
	k, err := openKnown(path)
	if err != nil {
		t.Fatal(err)
	}
	var last peer.ID
	var addrs []multiaddr.Multiaddr
	for i := range 2 * maxKnownAddrs {
		addrs = append(addrs, multiaddr.StringCast(fmt.Sprintf("/ip4/192.0.2.1/tcp/%d", i+1)))
	}
	for range maxKnown + 10 {
		last = idOf(t, newKey(t))
		k.meet(peer.AddrInfo{ID: last, Addrs: addrs})
	}
	if err := k.save(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() > maxKnownFile || info.Mode().Perm() != 0o600 {
		t.Fatalf("file: %v, %v", info, err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("left beside the file: %v, %v", entries, err)
	}
	again, err := openKnown(path)
	if err != nil {
		t.Fatal(err)
	}
	peers := again.peers()
	if len(peers) != maxKnown {
		t.Errorf("%d peers, want %d", len(peers), maxKnown)
	}
	if len(peers[0].Addrs) != maxKnownAddrs {
		t.Errorf("%d addresses, want %d", len(peers[0].Addrs), maxKnownAddrs)
	}
	if _, kept := again.met[last]; !kept {
		t.Error("the last one met is forgotten")
	}
}

func TestUnreadableLinesOfTheKnownPeersFileAreSkipped(t *testing.T) {
	now := time.Unix(2_000_000_000, 0)
	good := idOf(t, newKey(t))
	line := func(at time.Time, rest string) string { return fmt.Sprintf("%d %s\n", at.Unix(), rest) }
	text := strings.Join([]string{
		"\n", "garbage\n", "12 /ip4/nowhere\n", "x /ip4/192.0.2.1/tcp/1/p2p/" + good.String() + "\n",
		line(now.Add(time.Hour), "/ip4/192.0.2.1/tcp/1/p2p/"+idOf(t, newKey(t)).String()), // from the future
		line(now.Add(-2*knownFor), "/ip4/192.0.2.1/tcp/1/p2p/"+idOf(t, newKey(t)).String()),
		line(now, "/ip4/192.0.2.1/tcp/1"),
		line(now.Add(-time.Hour), "/ip4/192.0.2.1/tcp/1/p2p/"+good.String()),
	}, "")
	k := &known{met: make(map[peer.ID]acquaintance)}
	k.decode([]byte(text), now)
	if peers := k.peers(); len(peers) != 1 || peers[0].ID != good {
		t.Errorf("read %v", peers)
	}
}

func TestUnwritableKnownPeersFileIsSaid(t *testing.T) {
	k := &known{path: filepath.Join(t.TempDir(), "missing", "peers"), met: make(map[peer.ID]acquaintance)}
	k.meet(peer.AddrInfo{ID: idOf(t, newKey(t)), Addrs: []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/192.0.2.1/tcp/1")}})
	if err := k.save(); err == nil {
		t.Error("no error")
	}
}

func FuzzKnownPeersFile(f *testing.F) {
	f.Add([]byte("1700000000 /ip4/192.0.2.1/tcp/1/p2p/" + idOf(f, newKey(f)).String() + "\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		now := time.Unix(1_700_000_100, 0)
		k := &known{met: make(map[peer.ID]acquaintance)}
		k.decode(text, now)
		if len(k.met) > maxKnown {
			t.Fatalf("%d peers", len(k.met))
		}
		again := &known{met: make(map[peer.ID]acquaintance)}
		again.decode(k.encode(), now)
		if len(again.met) != len(k.met) {
			t.Fatalf("%d peers read, %d read back", len(k.met), len(again.met))
		}
	})
}
