package sim

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/compute-mesh/mesh/job"
)

var (
	seeds = flag.Int("seeds", 60, "how many seeds TestChaos runs")
	seed  = flag.Uint64("seed", 0, "run only this seed")
)

// TestChaos draws loss, delay, crashes, restarts and partitions from each seed, heals
// the world, and wants the job to end with every result right and all ledgers equal.
// A failure prints the seed: go test ./testnet/sim -run TestChaos -seed=N replays it.
func TestChaos(t *testing.T) {
	first, last := uint64(1), uint64(*seeds)
	if *seed != 0 {
		first, last = *seed, *seed
	}
	for n := first; n <= last; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) { chaos(t, n) })
		if t.Failed() {
			t.Fatalf("replay with: go test ./testnet/sim -run TestChaos -seed=%d", n)
		}
	}
}

func chaos(t *testing.T, n uint64) {
	t.Helper()
	cfg := lan(n, 6)
	w := New(cfg)
	w.cfg.Loss = w.rng.IntN(3) * w.rng.IntN(60)
	w.cfg.Duplicate = w.rng.IntN(50)
	w.cfg.DelayMax = time.Duration(1+w.rng.IntN(80)) * time.Millisecond
	id := submit(t, w, 0, func(s *job.Spec) {
		reduce(uint64(w.rng.IntN(2) * 4))(s)
		s.Array = uint64(20 + w.rng.IntN(200))
	})
	if !w.Run(time.Minute, func() bool { v, _ := w.Peers[0].View(id); return v.Accepted || v.Ended > 0 }) {
		t.Fatal("not accepted in a minute")
	}
	// At most R = 3 peers are down at a time: what the promise covers.
	faults := w.rng.IntN(6)
	down := 0
	for range faults {
		p := w.Peers[w.rng.IntN(len(w.Peers))]
		w.After(time.Duration(w.rng.IntN(8000))*time.Millisecond, func() {
			if !p.up || down == 3 {
				return
			}
			down++
			p.Crash(0)
			w.After(time.Duration(100+w.rng.IntN(10000))*time.Millisecond, func() {
				down--
				p.Restart()
			})
		})
	}
	calm := faults == 0 && w.cfg.Loss == 0
	if w.chance(400) {
		calm = false
		k := 1 + w.rng.IntN(4)
		w.After(time.Duration(w.rng.IntN(5000))*time.Millisecond, func() {
			w.Partition(func(a, b int) bool { return (a < k) != (b < k) })
		})
	}
	w.After(20*time.Second, func() {
		w.Partition(nil)
		w.cfg.Loss, w.cfg.Duplicate = 0, 0
	})
	w.Run(w.Now()+21*time.Second, nil)
	if !w.Run(w.Now()+3*time.Minute, func() bool { return w.Done(id) }) {
		report(t, w, id)
		t.Fatal("not done 3 minutes after the world was healed")
	}
	w.Run(w.Now()+30*time.Second, nil)
	checkDone(t, w, id)
	if calm {
		checkTwice(t, w)
	}
}

// checkTwice wants no task to have run twice.
func checkTwice(t *testing.T, w *World) {
	t.Helper()
	for task, n := range w.Started {
		if n > 1 {
			t.Errorf("stage %d task %d ran %d times without a failure", task.Stage, task.Index, n)
		}
	}
}
