package sim

import (
	"slices"
	"testing"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
)

// TestTwoResults has both sides of a partition run the same tasks, and a task that takes
// long keep their block open: all keepers have the same of two results soon after the
// network is whole, though what they say at that moment gets lost.
func TestTwoResults(t *testing.T) {
	for seed := uint64(61); seed < 64; seed++ {
		cfg := lan(seed, 4)
		cfg.Task = func(_ protocol.StageIndex, i protocol.TaskIndex) time.Duration {
			if i == 7 {
				return 5 * time.Minute
			}
			return 100 * time.Millisecond
		}
		w := New(cfg)
		id := submit(t, w, 0, func(s *job.Spec) { s.Array = 50 })
		accepted(t, w, id)
		w.Partition(func(i int) int { return i % 2 })
		w.Run(w.now+2*time.Minute, nil)
		w.cfg.Loss = 1000
		w.Partition(nil)
		w.Run(w.now+time.Second, nil)
		w.cfg.Loss = 0
		if !w.Run(w.now+settling, func() bool { return w.Settled(id) }) {
			t.Fatalf("seed %d: ledgers differ half a minute after the network is whole", seed)
		}
		if n := w.twice(id); n == 0 {
			t.Errorf("seed %d: no task has run on both sides", seed)
		}
		endsWell(t, w, id, 10*time.Minute)
	}
}

// twice is the number of a job's tasks that were started more than once.
func (w *World) twice(id protocol.JobID) (n int) {
	for task, started := range w.Started {
		if task.Job == id && started > 1 {
			n++
		}
	}
	return n
}

// TestTwoSeals has both sides of a partition seal the same block.
func TestTwoSeals(t *testing.T) {
	for seed := uint64(46); seed < 50; seed++ {
		w := New(lan(seed, 6))
		id := submit(t, w, 0, func(s *job.Spec) { s.Array, s.Replicas = 60, 5; reduce(4)(s) })
		accepted(t, w, id)
		w.Partition(func(i int) int { return i % 2 })
		w.Run(w.now+2*time.Minute, nil)
		before := w.Counts["record: Seal level 0"]
		w.Partition(nil)
		endsWell(t, w, id, time.Minute)
		if stages := len(w.jobs[id].Manifest.Stages); before <= stages {
			t.Errorf("%d seals of %d stages: only one side has sealed", before, stages)
		}
	}
}

// TestReopenMeetsSeal has one side of a partition seal a block while the other, which can't
// know, starts a new life for some of its tasks: after healing the new life stands, and the
// block is sealed again, with the same results.
func TestReopenMeetsSeal(t *testing.T) {
	for seed := uint64(64); seed < 67; seed++ {
		w := New(lan(seed, 6))
		w.cfg.Task = func(_ protocol.StageIndex, i protocol.TaskIndex) time.Duration {
			if i == 1050 {
				return 3 * time.Minute // the second block is open for so long
			}
			return 10 * time.Millisecond
		}
		id := submit(t, w, 0, func(s *job.Spec) { s.Array, s.Replicas = 1100, 5 })
		accepted(t, w, id)
		w.Partition(func(i int) int { return i % 2 })
		w.Run(w.now+time.Minute, func() bool { return w.Counts["record: Seal level 0"] > 0 })
		p := w.Peers[1]
		keep := slices.IndexFunc(p.machine.Records(id), func(r protocol.Record) bool {
			return r.Signer == p.ID() && r.Body.Kind() == protocol.KindKeep
		})
		if keep < 0 {
			t.Fatal("peer 1 is no keeper")
		}
		rec, err := protocol.SignRecord(p.signer, &protocol.Reopen{
			StageRef: protocol.StageRef{Job: id, Key: w.jobs[id].InputKey(0, nil)}, Range: protocol.Range{Lo: 10, Hi: 20}, Life: 1,
			Cause: protocol.ReopenLost, Keep: p.machine.Records(id)[keep].Hash,
		})
		if err != nil {
			t.Fatal(err)
		}
		w.Peers[3].step(market.Received{From: p.ID(), Message: &protocol.News{Job: id, Records: []protocol.Record{rec}}})
		w.Run(w.now+time.Second, nil)
		w.Partition(nil)
		endsWell(t, w, id, 6*time.Minute)
		if n := w.Counts["record: Seal level 0"]; n < 3 {
			t.Errorf("seed %d: %d seals of 2 blocks: the first was not sealed again", seed, n)
		}
	}
}

// TestTwoHolders loses a holder at the moment at which the network splits: both sides
// adopt its tasks, at the same epoch, and one holder stands once the network is whole.
func TestTwoHolders(t *testing.T) {
	for seed := uint64(74); seed < 77; seed++ {
		cfg := lan(seed, 7)
		cfg.Task = func(protocol.StageIndex, protocol.TaskIndex) time.Duration { return 2 * time.Minute }
		w := New(cfg)
		id := submit(t, w, 0, func(s *job.Spec) { s.Array, s.Replicas = 20, 5 })
		accepted(t, w, id)
		w.Run(w.now+time.Second, nil)
		w.Peers[6].Kill()
		w.Partition(func(i int) int { return i % 2 })
		w.Run(w.now+30*time.Second, nil)
		w.Partition(nil)
		if !w.Run(w.now+settling, func() bool { return w.Settled(id) }) {
			t.Fatalf("seed %d: ledgers differ half a minute after the network is whole", seed)
		}
		endsWell(t, w, id, 20*time.Minute)
	}
}
