package sim

import (
	"testing"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/protocol"
)

// TestAwayBeyondRetention has keepers off from the middle of a job until the others have let go of it. They hear that it has
// ended, and run none of its tasks again.
func TestAwayBeyondRetention(t *testing.T) {
	w := New(lan(83, 6))
	w.cfg.Task = func(protocol.StageIndex, protocol.TaskIndex) time.Duration { return time.Second }
	id := submit(t, w, 0, func(s *job.Spec) { s.Array, s.Retention = 60, time.Hour })
	accepted(t, w, id)
	w.Run(w.now+2*time.Second, nil)
	away := w.keepers(id)[1:3]
	for _, p := range away {
		p.Kill()
	}
	endsWell(t, w, id, 10*time.Minute)
	w.Run(w.now+2*time.Hour, nil)
	for _, p := range away {
		p.Restart()
	}
	w.Run(w.now+5*time.Second, nil) // a moment's work may be begun before anybody is heard
	runs := w.Counts["effect: run"]
	w.Run(w.now+10*time.Minute, nil)
	for _, p := range away {
		if s, _ := p.machine.State(id); s != 0 {
			t.Errorf("peer %d still has the job, in state %d", p.Index, s)
		}
	}
	if n := w.Counts["effect: run"] - runs; n > 0 {
		t.Errorf("%d tasks of a job that has ended were run", n)
	}
}
