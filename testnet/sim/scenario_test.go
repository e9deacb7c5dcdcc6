package sim

import (
	"strings"
	"testing"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
)

func reduce(fanIn uint64) func(*job.Spec) {
	return func(s *job.Spec) {
		s.Array, s.FanIn = 50, fanIn
		s.Reduce = &job.Command{Program: Program("reduce.wasm")}
	}
}

// until runs the world until the job has ended, then lets the ledgers settle.
func until(t *testing.T, w *World, id protocol.JobID, limit time.Duration) {
	t.Helper()
	if !w.Run(limit, func() bool { return w.Done(id) }) {
		report(t, w, id)
		t.Fatalf("not done in %v", limit)
	}
	took := w.Now()
	w.Run(took+10*time.Second, nil)
	t.Logf("took %v, %d messages of %v", took, sum(w.Counts), w.Counts)
}

func sum(m map[string]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}

func TestReduceTree(t *testing.T) {
	for _, fanIn := range []uint64{0, 4} {
		w := New(lan(3, 5))
		id := submit(t, w, 0, reduce(fanIn))
		until(t, w, id, time.Minute)
		checkDone(t, w, id)
	}
}

func TestNoTasks(t *testing.T) {
	w := New(lan(3, 3))
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = 0 })
	until(t, w, id, time.Minute)
	checkDone(t, w, id)
}

func TestManyBlocks(t *testing.T) {
	cfg := lan(4, 5)
	cfg.Task = func(protocol.StageIndex, protocol.TaskIndex) time.Duration { return time.Millisecond }
	w := New(cfg)
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = 10_000 })
	until(t, w, id, time.Minute)
	checkDone(t, w, id)
}

func TestWorkerDies(t *testing.T) {
	for victim := 1; victim < 5; victim++ {
		w := New(lan(uint64(victim), 5))
		id := submit(t, w, 0, func(s *job.Spec) { s.Array = 200 })
		w.After(1500*time.Millisecond, func() { w.Peers[victim].Kill() })
		until(t, w, id, time.Minute)
		checkDone(t, w, id)
	}
}

func TestSubmitterDiesForGood(t *testing.T) {
	for seed := range uint64(5) {
		w := New(lan(seed, 6))
		id := submit(t, w, 0, reduce(4))
		accepted := w.Run(10*time.Second, func() bool { v, _ := w.Peers[0].View(id); return v.Accepted })
		if !accepted {
			t.Fatal("never accepted")
		}
		t.Logf("accepted after %v", w.Now())
		w.Peers[0].Kill()
		until(t, w, id, time.Minute)
		checkDone(t, w, id)
	}
}

func TestSubmitterIsStopped(t *testing.T) {
	// As by SIGSTOP: it neither hears nor says anything, and its connections stay.
	w := New(lan(7, 5))
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = 200 })
	w.After(time.Second, func() { w.Peers[0].Kill() })
	until(t, w, id, time.Minute)
	checkDone(t, w, id)
}

func TestAllCrashAndRestart(t *testing.T) {
	w := New(lan(8, 5))
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = 200 })
	w.After(2*time.Second, func() {
		for _, p := range w.Peers {
			p.Kill()
		}
	})
	w.After(3*time.Second, func() {
		for _, p := range w.Peers {
			p.Restart()
		}
	})
	w.Run(3500*time.Millisecond, nil)
	until(t, w, id, 2*time.Minute)
	checkDone(t, w, id)
}

func TestLateJoiner(t *testing.T) {
	cfg := lan(9, 5)
	w := New(cfg)
	w.Peers[4].Kill()
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = 200 })
	w.After(time.Second, func() { w.Peers[4].Restart() })
	until(t, w, id, time.Minute)
	checkDone(t, w, id)
	v, _ := w.Peers[0].View(id)
	if len(v.Shares) != 5 {
		t.Errorf("the late joiner ran nothing: %v", v.Shares)
	}
}

func TestWithoutGossip(t *testing.T) {
	cfg := lan(10, 5)
	cfg.NoGossip = true
	w := New(cfg)
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = 2000 })
	until(t, w, id, 5*time.Minute)
	checkDone(t, w, id)
	v, _ := w.Peers[0].View(id)
	if len(v.Shares) != 5 {
		t.Errorf("%d of 5 peers ran tasks", len(v.Shares))
	}
}

func TestSubmitterWithoutSlots(t *testing.T) {
	cfg := lan(11, 5)
	cfg.Idle = map[int]bool{0: true}
	w := New(cfg)
	id := submit(t, w, 0, reduce(0))
	until(t, w, id, time.Minute)
	checkDone(t, w, id)
}

func TestLossAndDuplicates(t *testing.T) {
	for seed := range uint64(10) {
		cfg := lan(seed, 6)
		cfg.Loss, cfg.Duplicate, cfg.DelayMax = 100, 50, 50*time.Millisecond
		w := New(cfg)
		id := submit(t, w, 0, reduce(4))
		until(t, w, id, 5*time.Minute)
		checkDone(t, w, id)
	}
}

func TestPartitionHeals(t *testing.T) {
	w := New(lan(12, 6))
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = 600 })
	w.After(time.Second, func() { w.Partition(func(i int) int { return i / 3 }) })
	w.After(21*time.Second, func() { w.Partition(nil) })
	w.Run(22*time.Second, nil)
	until(t, w, id, 2*time.Minute)
	checkDone(t, w, id)
}

func TestFailingTask(t *testing.T) {
	cfg := lan(13, 4)
	cfg.Fail = func(_ int, _ protocol.StageIndex, i protocol.TaskIndex) bool { return i == 7 }
	w := New(cfg)
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = 40 })
	until(t, w, id, time.Minute)
	n := w.Started[Task{id, 0, 7}]
	if n != 4 {
		t.Errorf("task 7 ran %d times, want 4: 3 retries", n)
	}
	for _, p := range w.Peers {
		if v, ok := p.View(id); !ok || v.State != protocol.JobFailed || v.Reason != "stage 0 task 7: exit status 3: as told" {
			t.Errorf("peer %d: %v %d %q", p.Index, ok, v.State, v.Reason)
		}
	}
}

func TestFailsHereOnly(t *testing.T) {
	cfg := lan(14, 4)
	cfg.Fail = func(p int, _ protocol.StageIndex, _ protocol.TaskIndex) bool { return p == 2 }
	w := New(cfg)
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = 100 })
	until(t, w, id, time.Minute)
	checkDone(t, w, id)
}

// TestNobodyCanRunIt wants a job that all peers give back to say why, and to go on by
// itself when the cause goes.
func TestNobodyCanRunIt(t *testing.T) {
	cfg := lan(18, 5)
	full := true
	cfg.Unable = func(int, protocol.StageIndex, protocol.TaskIndex) bool { return full }
	w := New(cfg)
	id := submit(t, w, 0, nil)
	w.Run(15*time.Second, nil)
	for _, p := range w.Peers {
		if v, _ := p.View(id); v.Keeper && !strings.Contains(v.Reason, "no room on the disk") {
			t.Errorf("peer %d does not say why: %q", p.Index, v.Reason)
		}
	}
	steps := w.Steps
	w.Run(25*time.Second, nil)
	if n := w.Steps - steps; n > 10*5*200 {
		t.Errorf("%d steps in 10 s of standing still", n)
	}
	full = false
	until(t, w, id, time.Minute)
	checkDone(t, w, id)
}

// TestCheckpoint wants a killed peer to cost at most the work since its task's last
// checkpoint, and the time that its state takes to its keepers; where nobody has that state
// any more, the work since the one before it.
func TestCheckpoint(t *testing.T) {
	for n := range 10 {
		victim, lost := n%5, n >= 5
		cfg := lan(uint64(20+victim), 5)
		cfg.Task = func(protocol.StageIndex, protocol.TaskIndex) time.Duration { return time.Minute }
		cfg.Check = 5 * time.Second
		w := New(cfg)
		id := submit(t, w, 0, func(s *job.Spec) { s.Array = 5 })
		w.After(52*time.Second, func() {
			w.Peers[victim].Kill()
			if lost {
				w.loseStates(id, w.Peers[victim].ID())
			}
		})
		until(t, w, id, 3*time.Minute)
		checkDone(t, w, id)
		most := cfg.Check
		if lost {
			most *= 2
		}
		if more := w.Worked - 5*time.Minute; more > most || lost && more < cfg.Check {
			t.Errorf("peer %d killed, newest states lost: %v: %v of work repeated", victim, lost, more)
		}
		if w.Now() > 90*time.Second {
			t.Errorf("peer %d killed at 52 s: ended after %v", victim, w.Now()-10*time.Second)
		}
	}
}

// loseStates takes a peer's newest checkpoints for a job from all disks.
func (w *World) loseStates(id protocol.JobID, of protocol.PeerID) {
	for _, p := range w.Peers {
		if !p.up {
			continue
		}
		for _, rec := range p.machine.Records(id) {
			if b, ok := rec.Body.(*protocol.Checkpoint); ok && rec.Signer == of {
				for _, q := range w.Peers {
					delete(q.disk.blocks, b.State.KeyString())
				}
			}
		}
	}
}

// TestEveryPeerHasItsShare wants no peer to run fewer than half as many tasks as it would if all ran alike.
func TestEveryPeerHasItsShare(t *testing.T) {
	const tasks, peers = 200, 5
	for seed := range uint64(20) {
		cfg := lan(300+seed, peers)
		cfg.DelayMax = 30 * time.Millisecond
		cfg.Task = func(protocol.StageIndex, protocol.TaskIndex) time.Duration { return 50 * time.Millisecond }
		w := New(cfg)
		id := submit(t, w, 0, func(s *job.Spec) { s.Array = tasks })
		until(t, w, id, time.Minute)
		v, _ := w.Peers[0].View(id)
		ran := map[protocol.PeerID]uint64{}
		for _, s := range v.Shares {
			ran[s.Peer] = uint64(s.Tasks)
		}
		for _, p := range w.Peers {
			if n := ran[p.ID()]; n < tasks/peers/2 {
				t.Errorf("seed %d: peer %d ran %d of %d tasks", 300+seed, p.Index, n, tasks)
			}
		}
	}
}

// TestLeaves wants a peer that leaves to lose no finished result and to hand on the rest
// at once.
func TestLeaves(t *testing.T) {
	w := New(lan(30, 5))
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = 200 })
	w.After(time.Second, func() {
		w.Peers[3].step(market.Leaving{})
		w.After(500*time.Millisecond, func() {
			if w.Peers[3].machine.Busy() {
				t.Error("still busy half a second after it began to leave")
			}
			w.Peers[3].Kill()
		})
	})
	until(t, w, id, time.Minute)
	checkDone(t, w, id)
	for task, n := range w.Started {
		if n > 2 || n == 2 && task.Index < 10 {
			t.Errorf("task %d ran %d times", task.Index, n)
		}
	}
}

// TestLastSurvivor wants a member that reaches no keeper to become one and to end the job.
func TestLastSurvivor(t *testing.T) {
	cfg := lan(31, 6)
	cfg.Task = func(protocol.StageIndex, protocol.TaskIndex) time.Duration { return time.Second }
	w := New(cfg)
	id := submit(t, w, 0, func(s *job.Spec) { s.Array, s.Replicas = 120, 1 })
	w.Run(3*time.Second, nil)
	for _, p := range w.Peers {
		if v, ok := p.View(id); ok && v.Keeper {
			p.Kill()
		}
	}
	if !w.Run(10*time.Minute, func() bool { return w.Done(id) }) {
		report(t, w, id)
		t.Fatal("not done without the first keepers")
	}
	w.Run(w.Now()+5*time.Second, nil)
	checkDone(t, w, id)
}

// TestRetention wants a job's results to go when its time is over, its final state to
// stay, and late words of it to start nothing.
func TestRetention(t *testing.T) {
	w := New(lan(32, 4))
	id := submit(t, w, 0, func(s *job.Spec) { s.Retention = time.Hour })
	until(t, w, id, time.Minute)
	announced := w.Peers[0].announced
	w.Run(2*time.Hour, nil)
	for _, p := range w.Peers {
		if _, ok := p.View(id); ok {
			t.Errorf("peer %d still has the job", p.Index)
		}
		for _, a := range announced {
			p.step(market.Announced{Announcement: a})
		}
		p.Kill()
		p.Restart()
	}
	steps := len(w.Started)
	w.Run(3*time.Hour, nil)
	if len(w.Started) != steps {
		t.Error("a job that was over ran again")
	}
}

// TestEverybodyAcknowledges wants a cancelled job's keepers to know who has stopped.
func TestEverybodyAcknowledges(t *testing.T) {
	w := New(lan(33, 5))
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = 1000 })
	w.Run(time.Second, nil)
	w.Peers[1].Cancel(id)
	w.Run(2*time.Second, nil)
	if v, _ := w.Peers[0].View(id); len(v.Stopped) != 5 {
		t.Errorf("%d of 5 peers have acknowledged", len(v.Stopped))
	}
}

func TestKeepGoing(t *testing.T) {
	cfg := lan(15, 4)
	cfg.Fail = func(_ int, _ protocol.StageIndex, i protocol.TaskIndex) bool { return i == 3 }
	w := New(cfg)
	id := submit(t, w, 0, func(s *job.Spec) { s.Array, s.KeepGoing, s.Retries = 40, true, 1 })
	until(t, w, id, time.Minute)
	v, _ := w.Peers[0].View(id)
	if v.State != protocol.JobFailed || v.Stages[0].Done != 39 {
		t.Errorf("state %d, %d done", v.State, v.Stages[0].Done)
	}
}

func TestCancel(t *testing.T) {
	cfg := lan(16, 5)
	cfg.Task = func(protocol.StageIndex, protocol.TaskIndex) time.Duration { return time.Minute }
	w := New(cfg)
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = 1000 })
	w.Run(time.Second, nil)
	w.Peers[2].Cancel(id)
	w.Run(2*time.Second, nil)
	for _, p := range w.Peers {
		if len(p.runs) > 0 {
			t.Errorf("peer %d still runs %d tasks", p.Index, len(p.runs))
		}
		if v, _ := p.View(id); v.State != protocol.JobCancelled {
			t.Errorf("peer %d: state %d", p.Index, v.State)
		}
	}
}

func TestUnequalSpeeds(t *testing.T) {
	cfg := lan(17, 8)
	cfg.Speed = func(i int) int { return []int{300, 500, 1000, 1000, 1500, 2000, 700, 1200}[i] }
	w := New(cfg)
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = 800 })
	until(t, w, id, time.Minute)
	checkDone(t, w, id)
	took := w.Now() - 10*time.Second
	ideal := 800 * 100 * time.Millisecond * 1000 / 8200
	t.Logf("ideal %v, took %v: %.2f", ideal, took, float64(ideal)/float64(took))
}

func TestOneSeedOneTrace(t *testing.T) {
	run := func() protocol.Hash {
		cfg := lan(99, 6)
		cfg.Loss, cfg.Duplicate, cfg.DelayMax = 50, 50, 30*time.Millisecond
		w := New(cfg)
		id := submit(t, w, 0, reduce(4))
		w.After(900*time.Millisecond, func() { w.Peers[1].CutPower() })
		w.After(4*time.Second, func() { w.Peers[1].Restart() })
		w.Run(time.Minute, func() bool { return w.Done(id) })
		return w.Trace()
	}
	if a, b := run(), run(); a != b {
		t.Errorf("two runs of one seed: %v and %v", a, b)
	}
}
