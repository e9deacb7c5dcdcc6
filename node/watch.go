package node

import (
	"sync"

	"github.com/compute-mesh/mesh/protocol"
)

// watchers wakes those who wait for news of jobs.
type watchers struct {
	mu   sync.Mutex
	jobs map[protocol.JobID]map[chan struct{}]bool
}

func newWatchers() *watchers {
	return &watchers{jobs: make(map[protocol.JobID]map[chan struct{}]bool)}
}

// watch gives a channel that holds a token after each change of the job, and what ends that.
func (w *watchers) watch(id protocol.JobID) (changed <-chan struct{}, end func()) {
	c := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.jobs[id] == nil {
		w.jobs[id] = make(map[chan struct{}]bool)
	}
	w.jobs[id][c] = true
	return c, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.jobs[id], c)
		if len(w.jobs[id]) == 0 {
			delete(w.jobs, id)
		}
	}
}

// notify wakes the watchers of jobs. It never waits.
func (w *watchers) notify(ids []protocol.JobID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		for c := range w.jobs[id] {
			select {
			case c <- struct{}{}:
			default:
			}
		}
	}
}
