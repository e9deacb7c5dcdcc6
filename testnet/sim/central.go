package sim

import (
	"slices"
	"time"
)

// Central is the makespan of a scheduler that knows every duration and is told of
// everything at once: each task, in its order, goes to the peer that ends it first. The
// longest-first order is near the optimum, and needs durations that nobody has; it is
// what longest wants.
func Central(tasks []time.Duration, speeds []int, longest bool) time.Duration {
	tasks = slices.Clone(tasks)
	if longest {
		slices.SortFunc(tasks, func(a, b time.Duration) int { return int(b - a) })
	}
	free := make([]time.Duration, len(speeds))
	var makespan time.Duration
	for _, d := range tasks {
		best, at := 0, time.Duration(1<<62)
		for i, s := range speeds {
			if end := free[i] + d*1000/time.Duration(s); end < at {
				best, at = i, end
			}
		}
		free[best] = at
		makespan = max(makespan, at)
	}
	return makespan
}
