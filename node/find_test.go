package node

import (
	"testing"

	"github.com/compute-mesh/mesh/protocol"
)

// Of the views that several peers give of a job the one that knows most is shown, whoever answered first.
func TestFindShowsWhoKnowsMost(t *testing.T) {
	given := func(keeper bool, state protocol.JobState, done uint64) *view {
		return &view{report: report{Keeper: keeper, State: uint8(state), Stages: []stageReport{{Done: done}, {Done: 1}}}}
	}
	order := []*view{ // from the least
		given(false, protocol.JobRunning, 9),
		given(false, protocol.JobDone, 3),
		given(true, protocol.JobRunning, 1),
		given(true, protocol.JobRunning, 2),
		given(true, protocol.JobDone, 0),
		given(true, protocol.JobDone, 1),
	}
	for i, a := range order {
		for j, b := range order {
			if a.knowsMore(b) != (i > j) {
				t.Errorf("%d before %d: %v", i, j, a.knowsMore(b))
			}
		}
	}
}
