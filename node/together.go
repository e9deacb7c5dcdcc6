package node

import (
	"context"
	"os"
	"slices"
	"time"

	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/compute-mesh/mesh/sandbox"
)

// Tasks that take next to no time are run several in a row: to wake the sandbox's child and be woken by it costs more than they
// do. A row has a slot and a child, as a task on its own has.
const (
	// briefTask is how long a run may take to count as brief.
	briefTask = time.Millisecond
	// briefRuns is how many brief runs of a stage come before the first row. That grows by rowFailed with each row that came to a task
	// that was not, and shrinks by rowWorked with each other: where few are brief, rows cost less and less, and where all are one that
	// only the machine held up is soon forgotten.
	briefRuns = 8
	rowFailed = 4
	rowWorked = 2
	// longestRow is the most tasks in a row: at some 50 µs each they take as long as two waits of a child that holds its answers.
	longestRow = 32
)

// habit is whether the stage that ran here last has brief tasks.
type habit struct {
	job   protocol.JobID
	stage protocol.StageIndex
	brief int // brief runs, up to twice need; each other one halves it
	need  int // brief runs before a row
}

// ran takes into account how a run ended.
func (h *habit) ran(t *task, e *market.Ended) {
	if h.job != t.Job.ID || h.stage != t.Stage {
		*h = habit{job: t.Job.ID, stage: t.Stage, need: briefRuns}
	}
	if e.Outcome != market.OutcomeDone || e.Wall > briefTask {
		h.brief /= 2
	} else if h.brief < 2*h.need {
		h.brief++
	}
}

// rowed takes into account how a row ended, if that still matters.
func (h *habit) rowed(t *task, whole bool) {
	switch {
	case h.job != t.Job.ID || h.stage != t.Stage:
	case whole:
		h.need = max(h.need/rowWorked, briefRuns)
		h.brief = min(h.brief, 2*h.need)
	default:
		h.brief, h.need = 0, min(h.need*rowFailed, 1<<20)
	}
}

// fits tells whether a task may be run in a row, as far as is known. What killed a peer before, or goes on from a checkpoint, is
// run on its own.
func (h *habit) fits(t *task) bool {
	return h.job == t.Job.ID && h.stage == t.Stage && h.brief >= h.need && t.err == nil && !t.Alone && len(t.States) == 0
}

// row is the tasks at i in the queue and behind that are run one after another: a slot's part of those that are ready. mu is held.
func (r *runner) row(i int) []*task {
	if !r.habit.fits(r.queue[i]) {
		return []*task{r.queue[i]}
	}
	var list []*task
	for _, t := range r.queue[i:] {
		if t.state == taskReady && r.habit.fits(t) {
			list = append(list, t)
		}
	}
	return list[:min(longestRow, (len(list)+r.slots-1)/r.slots)]
}

// together runs tasks in a row and answers them. The one that was not brief, if there is one, is run on its own, and those
// behind it go back to the queue.
func (r *runner) together(slot int, list []*task) {
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	tasks := make([]sandbox.Task, len(list))
	for i, t := range list {
		r.equip(t)
		tasks[i] = t.input.task
	}
	r.stoppedBy(list, cancel)
	n, err := r.pool.RunTogether(ctx, tasks, func(i int) {
		r.begin(slot, list[i])
	}, func(i int, result sandbox.Result) {
		r.end(list[i], r.settle(list[i], &result, nil))
	})
	whole := n == len(list) || err == nil && n > 0 // for the others there was no room
	if whole || ctx.Err() == nil {
		r.rowed(list[0], whole)
	}
	list = list[n:]
	r.stoppedBy(list, nil)
	for _, t := range list {
		os.Remove(t.input.task.Log) // of what it may have begun
	}
	if whole {
		r.putBack(list)
		return
	}
	r.log.Debug("a task in a row is run on its own", "job", list[0].Job.ID, "stage", list[0].Stage, "task", list[0].Index, "error", err)
	r.putBack(list[1:])
	r.alone(slot, list[0])
}

// rowed counts a row, and has the next ones learn from it.
func (r *runner) rowed(t *task, whole bool) {
	if whole {
		r.count.rows.Add(1)
	} else {
		r.count.broken.Add(1)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.habit.rowed(t, whole)
}

// stoppedBy says what else ends when one of the tasks is stopped: the row that they are in. One that has been stopped already
// ends it now.
func (r *runner) stoppedBy(list []*task, row context.CancelFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range list {
		if t.row = row; row != nil && t.ctx.Err() != nil {
			row()
		}
	}
}

// putBack puts tasks at the front of the queue again, and answers those that were stopped.
func (r *runner) putBack(list []*task) {
	r.mu.Lock()
	var stopped []*task
	list = slices.DeleteFunc(slices.Clone(list), func(t *task) bool {
		t.began, t.state = time.Time{}, taskReady
		if t.ctx.Err() == nil {
			return false
		}
		t.state = taskStopped
		stopped = append(stopped, t)
		return true
	})
	r.queue = slices.Insert(r.queue, 0, list...)
	r.ready.Broadcast()
	r.mu.Unlock()
	for _, t := range stopped {
		r.end(t, market.Ended{Outcome: market.OutcomeStopped})
	}
}
