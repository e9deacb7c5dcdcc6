package node

import (
	"sync"
	"time"

	"github.com/compute-mesh/mesh/protocol"
)

const (
	// rateStep is the least time between two samples of a job that are both kept.
	rateStep = time.Second
	// rateSpan is the time that a rate is taken over, and rateTasks the results: whichever is longer, so that a job of
	// hour-long tasks has a rate, too.
	rateSpan  = 30 * time.Second
	rateTasks = 8
	// maxSamples bounds the samples of a job: those of rateSpan, one a rateStep.
	maxSamples = int(rateSpan/rateStep) + rateTasks
	// maxRates bounds the jobs whose rate is measured.
	maxRates = 1024
)

// rates measures how fast jobs go, from one look at a job to the next.
type rates struct {
	mu   sync.Mutex
	jobs map[protocol.JobID][]sample // each of more results than the one before
}

type sample struct {
	at   time.Time
	done uint64
}

// rate is results a second lately, of a job of that age; 0: unknown. It falls while no result comes.
func (r *rates) rate(id protocol.JobID, done uint64, age time.Duration, now time.Time) float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	list, known := r.jobs[id]
	if !known {
		if len(r.jobs) >= maxRates {
			clear(r.jobs)
		}
		list = []sample{{now.Add(-age), 0}}
	}
	last := &list[len(list)-1]
	switch {
	case done < last.done: // another peer's count
		list = []sample{{now, done}}
	case done == last.done:
	case len(list) > 1 && now.Sub(list[len(list)-2].at) < rateStep:
		*last = sample{now, done}
	default:
		list = append(list, sample{now, done})
	}
	for len(list) > 2 && (len(list) > maxSamples || now.Sub(list[1].at) >= rateSpan && done-list[1].done >= rateTasks) {
		list = list[1:]
	}
	r.jobs[id] = list
	if since := now.Sub(list[0].at); since > 0 {
		return float64(done-list[0].done) / since.Seconds()
	}
	return 0
}
