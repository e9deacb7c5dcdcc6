package chunkstore

import (
	"crypto/rand"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
)

// lockedText is a log that several goroutines write.
type lockedText struct {
	mu sync.Mutex
	strings.Builder
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Builder.Write(p)
}

func (l *lockedText) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.String(), text)
}

// keyedHost is a host of the given key and address.
func keyedHost(t *testing.T, key crypto.PrivKey, addr string) host.Host {
	t.Helper()
	return must(libp2p.New(libp2p.Identity(key), libp2p.ListenAddrStrings(addr), libp2p.Transport(tcp.NewTCPTransport), libp2p.DisableRelay(), libp2p.DisableMetrics()))(t)
}

// TestHolderThatComesBackIsAsked: a holder that was away long enough for libp2p to put off the next dial by minutes is
// fetched from as soon as it is there again, and its absence is one line in the log.
func TestHolderThatComesBackIsAsked(t *testing.T) {
	text := &lockedText{}
	asker := newMesher(t, noBitswap, func(c *ExchangeConfig) {
		c.Log = slog.New(slog.NewTextHandler(text, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	holderStore := testStore(t)
	list := fill(t, holderStore, 1, 3, 1000)

	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	first := keyedHost(t, key, "/ip4/127.0.0.1/tcp/0")
	id, addr := first.ID(), first.Addrs()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	asker.host.Peerstore().AddAddrs(id, addr, peerstore.PermanentAddrTTL)

	for range 4 {
		err := asker.Fetch(t.Context(), list, []peer.ID{id}, FetchOptions{})
		if !errors.Is(err, ErrUnavailable) {
			t.Fatalf("fetch from nobody: %v", err)
		}
	}
	backoff := asker.host.Network().(*swarm.Swarm).Backoff()
	for range 60 { // an hour of tries by others
		backoff.AddBackoff(id, addr[0])
	}
	if n := text.count("holder not reached"); n != 1 || text.count("level=INFO") != 0 {
		t.Errorf("the absence is said %d times, and %d lines are not for debugging", n, text.count("level=INFO"))
	}

	second := keyedHost(t, key, addr[0].String())
	defer second.Close()
	holder := must(NewExchange(second, holderStore, ExchangeConfig{NoBitswap: true}))(t)
	defer holder.Close()
	eventually(t, "the holder that has come back serves", func() bool {
		return asker.Fetch(t.Context(), list, []peer.ID{id}, FetchOptions{}) == nil
	})
	checkHas(t, asker.store, list)
}

// TestAbsencesAreBounded: the pauses grow to their limit, and strangers' ones do not pile up.
func TestAbsencesAreBounded(t *testing.T) {
	x := newMesher(t, noBitswap).Exchange
	gone := peer.ID("gone")
	for range 20 {
		x.miss(gone, errAway)
		x.away[gone] = absence{pause: x.away[gone].pause} // its time is over
	}
	if p := x.away[gone].pause; p != awayLast {
		t.Errorf("pause %v after 20 misses", p)
	}
	for n := range 2 * maxAway {
		x.miss(peer.ID(numbered(n)), errAway)
	}
	if n := len(x.away); n != maxAway {
		t.Errorf("%d absences remembered", n)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}
