package testnet

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// Kind is a sort of fault.
type Kind string

// The faults, and what undoes those that last.
const (
	KindKill      Kind = "kill"      // signal 9, as a crash; Start ends it
	KindRestart   Kind = "restart"   // SIGTERM, and up again at once
	KindPause     Kind = "pause"     // SIGSTOP of meshd and its tasks; Resume ends it
	KindPartition Kind = "partition" // into two groups; Heal ends it
	KindStart     Kind = "start"
	KindResume    Kind = "resume"
	KindHeal      Kind = "heal"
)

// Kinds are the faults that chaos can make: all of them, in the order in which they are
// drawn from.
func Kinds() []Kind { return []Kind{KindKill, KindRestart, KindPause, KindPartition} }

const (
	// MaxChaos bounds how long a chaos goes on: its list of events is made beforehand.
	MaxChaos = 24 * time.Hour
	// minChaos is the least that can hold a fault and its end.
	minChaos = time.Second
	// chaosGap is the mean time between two faults that are tried. Those that would take
	// down too many peers are left out.
	chaosGap = 1500 * time.Millisecond
	// minOutage and maxOutage are how long a fault lasts: from so short that others may
	// not notice to longer than any of the mesh's own limits for silence (5 s).
	minOutage = 300 * time.Millisecond
	maxOutage = 8 * time.Second
)

// ChaosConfig says which faults are wanted.
type ChaosConfig struct {
	// For is how long faults go on: 1 s to MaxChaos.
	For time.Duration
	// Seed gives the list of faults: the same for the same config and number of peers.
	Seed uint64
	// Faults are the kinds to draw from; none: all.
	Faults []Kind
	// Keep are peers that are never killed, restarted or paused; a partition may part
	// them from others.
	Keep []int
	// Down is how many peers may be down (killed, restarting or paused) at once, at least
	// 1 and less than all. 0: a third of the peers, at least 1: with the 3 replicas of a
	// default job and up to 8 peers, at most 2 of them at a time.
	Down int
}

// Event is something that chaos does.
type Event struct {
	At     time.Duration // since it began
	Kind   Kind
	Peer   int     // of a fault of one peer
	Groups [][]int // of a partition
}

// OfPeer tells whether it is done to one peer.
func (e Event) OfPeer() bool { return e.Kind != KindPartition && e.Kind != KindHeal }

// validate tells all that is wrong with c for a testnet of so many peers.
func (c ChaosConfig) validate(peers int) error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("testnet: chaos: "+format, args...))
	}
	if c.For < minChaos || c.For > MaxChaos {
		fault("for %s: give %s to %s", c.For, minChaos, MaxChaos)
	}
	for _, k := range c.Faults {
		if !slices.Contains(Kinds(), k) {
			fault("%q is no fault: give some of %q", k, Kinds())
		}
	}
	for _, i := range c.Keep {
		if i < 0 || i >= peers {
			fault("keep: there is no peer %d: peers are 0 to %d", i, peers-1)
		}
	}
	if peers < 2 {
		fault("%d peers: one has to be up while another is down", peers)
	} else if c.Down < 0 || c.Down >= peers {
		fault("%d peers down at once: give 1 to %d", c.Down, peers-1)
	}
	return errors.Join(faults...)
}

// schedule is all that chaos does to so many peers, by its time: no peer has two faults at
// once, never are more down than c.Down, there is one partition at a time, and all has
// ended at c.For. It depends on nothing but its arguments.
func (c ChaosConfig) schedule(peers int) []Event {
	kinds := Kinds()
	if len(c.Faults) > 0 {
		kinds = slices.DeleteFunc(kinds, func(k Kind) bool { return !slices.Contains(c.Faults, k) })
	}
	most := c.Down
	if most == 0 {
		most = max(1, peers/3)
	}
	r := rand.New(rand.NewPCG(c.Seed, uint64(peers)))
	until := make([]time.Duration, peers) // when a peer is up again
	var whole time.Duration               // when the partition has healed
	var events []Event
	for t := gap(r); t < c.For; t += gap(r) {
		// Every round draws as often, so that what is left out changes nothing that follows.
		kind, i, groups := kinds[r.IntN(len(kinds))], r.IntN(peers), split(r, peers)
		end := min(t+minOutage+millis(r, maxOutage-minOutage), c.For)
		if kind == KindPartition {
			if t >= whole {
				whole = end
				events = append(events, Event{At: t, Kind: kind, Groups: groups}, Event{At: end, Kind: KindHeal})
			}
			continue
		}
		down := 0
		for _, back := range until {
			if t <= back && back > 0 {
				down++
			}
		}
		if down >= most || (until[i] > 0 && t <= until[i]) || slices.Contains(c.Keep, i) {
			continue
		}
		events = append(events, Event{At: t, Kind: kind, Peer: i})
		switch kind {
		case KindKill:
			events = append(events, Event{At: end, Kind: KindStart, Peer: i})
			until[i] = end
		case KindPause:
			events = append(events, Event{At: end, Kind: KindResume, Peer: i})
			until[i] = end
		}
	}
	slices.SortStableFunc(events, func(a, b Event) int { return cmp.Compare(a.At, b.At) })
	return events
}

// gap is the time to the next fault.
func gap(r *rand.Rand) time.Duration { return time.Millisecond + millis(r, 2*chaosGap) }

// millis is a time below most, in whole milliseconds, so that what is shown of it is all.
func millis(r *rand.Rand, most time.Duration) time.Duration {
	return time.Millisecond * time.Duration(r.Int64N(int64(most/time.Millisecond)))
}

// split parts the peers into two groups, neither empty.
func split(r *rand.Rand, peers int) [][]int {
	order := r.Perm(peers)
	cut := 1 + r.IntN(peers-1)
	groups := [][]int{order[:cut], order[cut:]}
	for _, g := range groups {
		slices.Sort(g)
	}
	return groups
}
