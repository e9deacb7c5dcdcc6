package sim

import (
	"testing"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
)

// TestKeepersHandOver has all keepers of a running job find that they have no room for it: others keep it in their place,
// and when one of these dies the job still has who keeps it.
func TestKeepersHandOver(t *testing.T) {
	w := New(lan(81, 10))
	w.cfg.Task = func(protocol.StageIndex, protocol.TaskIndex) time.Duration { return time.Second }
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = 600 })
	accepted(t, w, id)
	w.Run(w.now+2*time.Second, nil)
	crowded := w.keepers(id)
	for _, p := range crowded {
		p.step(market.HandOver{Jobs: []protocol.JobID{id}})
	}
	gone := func() bool {
		for _, p := range crowded {
			if v, ok := p.machine.View(id); ok && (v.Keeper || v.Going) {
				return false
			}
		}
		return true
	}
	if !w.Run(w.now+3*time.Minute, gone) {
		t.Fatal("who has no room still keeps the job")
	}
	now := w.keepers(id)
	if len(now) < 2 {
		t.Fatalf("%d peers keep the job", len(now))
	}
	now[0].Kill()
	endsWell(t, w, id, 10*time.Minute)
}
