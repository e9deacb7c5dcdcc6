package dht

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// dials runs a dialer in simulated time for as long as given and returns when each dial was made.
func dials(t *testing.T, target, degree int, length time.Duration, prepare func(*dialer), outcome error) []time.Duration {
	t.Helper()
	var at []time.Duration
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		attempts := make(chan time.Duration, 10_000)
		d := newDialer(target, func() int { return degree }, func(context.Context, peer.AddrInfo) error {
			attempts <- time.Since(began)
			return outcome
		}, slog.New(slog.DiscardHandler))
		prepare(d)
		ctx, cancel := context.WithTimeout(t.Context(), length)
		defer cancel()
		d.run(ctx)
		close(attempts)
		for a := range attempts {
			at = append(at, a)
		}
	})
	return at
}

var errUnreachable = errors.New("unreachable")

func TestBootstrapIsDialledForEverAtABoundedRate(t *testing.T) {
	const length = 24 * time.Hour
	at := dials(t, 1, 5, length, func(d *dialer) { d.add(peer.AddrInfo{ID: "a"}, chosen) }, errUnreachable)
	if len(at) < 8 || at[4] > 10*time.Second {
		t.Fatalf("dialled at %v: want several times within the first seconds", at)
	}
	for i := 1; i < len(at); i++ {
		if wait := at[i] - at[i-1]; wait > redialChosen*3/2 {
			t.Fatalf("waited %v before dial %d", wait, i)
		}
	}
	if last := at[len(at)-1]; last < length-redialChosen*3/2 {
		t.Errorf("given up after %v", last)
	}
	if most := int(length / (redialChosen / 2)); len(at) > most+16 {
		t.Errorf("%d dials in %v", len(at), length)
	}
}

func TestPeersNamedByOthersAreDialledOnlyBelowTheTargetDegreeAndNotForEver(t *testing.T) {
	add := func(d *dialer) { d.add(peer.AddrInfo{ID: "a"}, named) }
	if at := dials(t, 3, 3, time.Hour, add, errUnreachable); len(at) != 0 {
		t.Errorf("at the target degree, dialled at %v", at)
	}
	if at := dials(t, 3, 2, 24*time.Hour, add, errUnreachable); len(at) != maxFailures {
		t.Errorf("dialled %d times, want %d", len(at), maxFailures)
	}
}

func TestConnectedPeerIsNotDialledUntilItIsLost(t *testing.T) {
	info := peer.AddrInfo{ID: "a"}
	at := dials(t, 3, 0, time.Hour, func(d *dialer) { d.connected(info); d.add(info, chosen) }, nil)
	if len(at) != 0 {
		t.Errorf("dialled at %v", at)
	}
	at = dials(t, 3, 0, 5*time.Second, func(d *dialer) { d.connected(info); d.lost(info.ID) }, nil)
	if len(at) != 1 || at[0] > redialFirst*3/2 {
		t.Errorf("after a loss, dialled at %v", at)
	}
}

func TestFlappingPeerIsDialledLessAndLess(t *testing.T) {
	// Each dial succeeds, and the connection is lost at once.
	info := peer.AddrInfo{ID: "a"}
	var d *dialer
	count := 0
	synctest.Test(t, func(t *testing.T) {
		d = newDialer(3, func() int { return 0 }, func(context.Context, peer.AddrInfo) error {
			count++
			d.connected(info)
			d.lost(info.ID)
			return nil
		}, slog.New(slog.DiscardHandler))
		d.add(info, named)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		d.run(ctx)
	})
	if most := int(time.Hour/(redialOther/2)) + 16; count < 5 || count > most {
		t.Errorf("%d dials in an hour, want 5 to %d", count, most)
	}
}

func TestCandidatesAreBoundedAndChosenOnesStay(t *testing.T) {
	d := newDialer(1, func() int { return 0 }, nil, slog.New(slog.DiscardHandler))
	d.add(peer.AddrInfo{ID: "bootstrap"}, chosen)
	d.add(peer.AddrInfo{ID: "bootstrap"}, named)
	for i := range 2 * maxCandidates {
		d.add(peer.AddrInfo{ID: peer.ID(rune(i + 1000))}, named)
	}
	if len(d.candidates) != maxCandidates {
		t.Errorf("%d candidates, want %d", len(d.candidates), maxCandidates)
	}
	if c := d.candidates["bootstrap"]; c == nil || c.origin != chosen {
		t.Error("the bootstrap peer was displaced")
	}
}

// A dial is to the addresses that were known when it was begun, whatever is learned the next moment.
func TestDialUnderWayIsNotChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, later := multiaddr.StringCast("/ip4/127.0.0.1/tcp/1"), multiaddr.StringCast("/ip4/127.0.0.1/tcp/2")
		dialled := make(chan multiaddr.Multiaddr, 1)
		d := newDialer(3, func() int { return 0 }, func(_ context.Context, info peer.AddrInfo) error {
			dialled <- info.Addrs[0]
			return nil
		}, slog.New(slog.DiscardHandler))
		d.add(peer.AddrInfo{ID: "a", Addrs: []multiaddr.Multiaddr{first}}, named)
		d.start(t.Context())
		d.add(peer.AddrInfo{ID: "a", Addrs: []multiaddr.Multiaddr{later}}, named)
		if got := <-dialled; !got.Equal(first) {
			t.Errorf("dialled %s, want %s", got, first)
		}
		d.wg.Wait()
	})
}
