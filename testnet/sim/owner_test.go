package sim

import (
	"testing"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/protocol"
)

// TestPause wants nothing to be started while the owner has a job paused, and all of it
// to be done after he resumes it.
func TestPause(t *testing.T) {
	w := New(lan(67, 5))
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = 200 })
	w.Run(time.Second, nil)
	w.Peers[2].Order(id, 1, protocol.VerbPause)
	w.Run(w.now+2*time.Second, nil)
	started := len(w.Started)
	w.Run(w.now+time.Minute, nil)
	if n := len(w.Started) - started; n > 0 || started == 200 {
		t.Errorf("%d of %d tasks started while the job was paused", n, 200-started)
	}
	w.Peers[3].Order(id, 2, protocol.VerbResume)
	endsWell(t, w, id, time.Minute)
}

// TestRetry has a job fail, its program be mended, and its owner try again.
func TestRetry(t *testing.T) {
	cfg := lan(68, 5)
	broken := true
	cfg.Fail = func(_ int, _ protocol.StageIndex, i protocol.TaskIndex) bool { return broken && i == 7 }
	w := New(cfg)
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = 40 })
	until(t, w, id, time.Minute)
	w.Verify(id, protocol.JobFailed)
	broken = false
	w.Peers[3].Order(id, 1, protocol.VerbRetry)
	w.Run(w.now+time.Second, nil)
	endsWell(t, w, id, time.Minute)
}

// TestCancelReachesKeepers cancels a job at a peer that is cut off from all others until
// the job is done: cancelled beats done.
func TestCancelReachesKeepers(t *testing.T) {
	w := New(lan(70, 6))
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = 60 })
	accepted(t, w, id)
	var cut *Peer
	for _, p := range w.Peers {
		if !p.disk.kept[id] {
			cut = p
		}
	}
	w.Partition(func(i int) int {
		if i == cut.Index {
			return 1
		}
		return 0
	})
	cut.Cancel(id)
	if !w.Run(w.now+time.Minute, func() bool { return w.Done(id) }) {
		t.Fatal("not done without the peer that is cut off")
	}
	w.Run(w.now+settling, nil)
	cfg := &w.cfg
	cfg.Loss = 900
	w.Partition(nil)
	w.Run(w.now+3*time.Second, nil)
	cfg.Loss = 0
	w.Run(w.now+settling, nil)
	w.Verify(id, protocol.JobCancelled)
	for _, v := range w.Violations {
		t.Error(v)
	}
}

// TestSubmittedAgainAfterCancel cancels a job and submits the same work anew: another job.
func TestSubmittedAgainAfterCancel(t *testing.T) {
	w := New(lan(56, 5))
	spec := func(s *job.Spec) { s.Array = 200 }
	first := submit(t, w, 0, spec)
	w.Run(time.Second, nil)
	w.Peers[0].Cancel(first)
	second := submit(t, w, 0, spec)
	w.Peers[0].submit(w.jobs[first])
	endsWell(t, w, second, time.Minute)
	w.Verify(first, protocol.JobCancelled)
	w.Run(3*time.Minute, nil)
	w.Peers[0].submit(w.jobs[first])
	started := len(w.Started)
	w.Run(5*time.Minute, nil)
	if len(w.Started) != started {
		t.Error("a job that was cancelled and let go of ran again")
	}
}

// TestAwayDuringCancel brings a keeper back long after its job was cancelled and let go of.
func TestAwayDuringCancel(t *testing.T) {
	w := New(lan(57, 5))
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = 2000 })
	accepted(t, w, id)
	away := w.keepers(id)[1]
	away.Kill()
	w.Run(w.now+time.Second, nil)
	for _, p := range w.Peers {
		if p.up {
			p.Cancel(id)
			break
		}
	}
	w.Run(w.now+5*time.Minute, nil)
	away.Restart()
	started := len(w.Started)
	w.Run(w.now+2*time.Minute, nil)
	if v, ok := away.View(id); ok && v.State == protocol.JobRunning || len(w.Started) > started {
		t.Errorf("a keeper that was away runs a cancelled job: %d tasks more", len(w.Started)-started)
	}
}
