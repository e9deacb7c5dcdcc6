package node

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/compute-mesh/mesh/sandbox"
)

const (
	// preparersAtOnce is how many tasks' inputs are brought at a time, beside one a slot: enough to hide the way to
	// other peers, few enough not to spoil each other.
	preparersAtOnce = 4
	// aheadMost bounds the tasks whose inputs are fetched before they are to be run.
	aheadMost = 256
)

// runner runs tasks in the order that it is given them, in as many slots as there are, as long as the memory lent
// allows; the inputs of those that wait are brought meanwhile. A task whose input is not there yet is passed by those
// behind it.
type runner struct {
	slots  int
	memory uint64 // lent to all running tasks together, bytes
	prep   *preparer
	pool   *sandbox.Pool
	deaths *deaths // nil: no slots
	post   func(market.Input)
	log    *slog.Logger
	count  runnerCounters
	noted  atomic.Int64 // Unix ns of the last warning of a task

	checkpoints checkpointCounters

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	ready   sync.Cond // a task is ready, or memory is free, or it closes
	fresh   sync.Cond // a task is to be prepared, or it closes
	queue   []*task   // not running yet
	ahead   []*task   // only to be prepared
	tasks   map[market.RunID]*task
	lent    uint64 // memory of running tasks, once for those in a row
	running int    // slots that are taken
	habit   habit
	closed  bool
}

// runnerCounters count how runs ended.
type runnerCounters struct {
	done, failed, released, stopped atomic.Uint64
	rows, broken                    atomic.Uint64 // rows of tasks that went well, and that came to a task that was not brief
	wall                            atomic.Int64  // ns
}

// task is a Run on its way. Guarded by runner.mu, but for what says otherwise.
type task struct {
	market.Run
	state  taskState
	input  *prepared // of the goroutine that has the task
	err    error     // why it can't be run
	ctx    context.Context
	cancel context.CancelFunc
	row    context.CancelFunc // ends the row that it is in; nil: none
	log    string             // host file of the log, while it runs
	began  time.Time
	told   atomic.Int64 // permille done plus one, as the program says; 0: it says nothing
}

type taskState uint8

const (
	taskNew       taskState = iota // to be prepared
	taskPreparing                  // its input is on its way
	taskReady                      // to be run, or reported where it has an error
	taskRunning
	taskStopped
)

func newRunner(slots int, memory uint64, p *preparer, pool *sandbox.Pool, d *deaths, post func(market.Input), log *slog.Logger) *runner {
	r := &runner{slots: slots, memory: memory, prep: p, pool: pool, deaths: d, post: post, log: log, tasks: make(map[market.RunID]*task)}
	r.ready.L, r.fresh.L = &r.mu, &r.mu
	r.ctx, r.cancel = context.WithCancel(context.Background())
	if slots > 0 {
		for i := range slots {
			r.wg.Go(func() { r.slot(i) })
		}
		for range slots + preparersAtOnce {
			r.wg.Go(r.prepare)
		}
	}
	return r
}

// run takes runs; it does not wait.
func (r *runner) run(list []market.Run) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return // the machine would only give them again
	}
	for _, q := range list {
		t := &task{Run: q}
		t.ctx, t.cancel = context.WithCancel(r.ctx)
		r.tasks[q.ID] = t
		r.queue = append(r.queue, t)
		r.fresh.Signal()
	}
}

// prefetch brings the inputs of tasks that may be run soon; it does not wait.
func (r *runner) prefetch(list []market.Run) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.slots == 0 {
		return
	}
	for _, q := range list {
		if len(r.ahead) < aheadMost {
			r.ahead = append(r.ahead, &task{Run: q, ctx: r.ctx})
			r.fresh.Signal()
		}
	}
}

// stop ends runs: those that wait are dropped, those that run are killed. It does not wait.
func (r *runner) stop(ids []market.RunID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		t := r.tasks[id]
		if t == nil {
			continue
		}
		t.cancel()
		if t.row != nil {
			t.row()
		}
		if t.state == taskNew || t.state == taskReady {
			r.remove(t)
			t.state = taskStopped
			go r.end(t, market.Ended{Outcome: market.OutcomeStopped})
		}
	}
}

// close stops every run and returns when no task process is at work any more. Runs that were under way are answered as
// stopped.
func (r *runner) close() {
	r.mu.Lock()
	r.closed = true
	var ids []market.RunID
	for id := range r.tasks {
		ids = append(ids, id)
	}
	r.mu.Unlock()
	r.stop(ids)
	r.cancel()
	r.mu.Lock()
	r.ready.Broadcast()
	r.fresh.Broadcast()
	r.mu.Unlock()
	r.wg.Wait()
}

// remove takes a task out of the queue. mu is held.
func (r *runner) remove(t *task) {
	if i := slices.Index(r.queue, t); i >= 0 {
		r.queue = slices.Delete(r.queue, i, i+1)
	}
}

// prepare brings the inputs of tasks, first of those to be run, in their order.
func (r *runner) prepare() {
	for {
		t, wanted := r.nextFresh()
		if t == nil {
			return
		}
		if !wanted {
			if err := r.prep.prefetch(t.ctx, &t.Run); err != nil {
				r.log.Debug("input not fetched ahead", "job", t.Job.ID, "task", t.Index, "error", err)
			}
			continue
		}
		input, err := r.prep.prepare(t.ctx, &t.Run)
		if err == nil {
			r.resume(t, input)
		}
		r.mu.Lock()
		t.input, t.err = input, err
		t.state = taskReady
		stopped := t.ctx.Err() != nil
		if stopped {
			r.remove(t)
			t.state = taskStopped
		} else {
			r.ready.Signal()
		}
		r.mu.Unlock()
		if stopped {
			r.end(t, market.Ended{Outcome: market.OutcomeStopped})
		}
	}
}

// nextFresh waits for a task to prepare; nil: it closes. wanted tells whether it is to be run, too.
func (r *runner) nextFresh() (t *task, wanted bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		if r.closed {
			return nil, false
		}
		for _, t := range r.queue {
			if t.state == taskNew {
				t.state = taskPreparing
				return t, true
			}
		}
		if len(r.ahead) > 0 {
			t, r.ahead = r.ahead[0], r.ahead[1:]
			return t, false
		}
		r.fresh.Wait()
	}
}

// slot runs tasks until the runner closes.
func (r *runner) slot(number int) {
	for {
		list := r.nextReady()
		if len(list) == 0 {
			return
		}
		need := list[0].need()
		if len(list) == 1 {
			r.alone(number, list[0])
		} else {
			r.together(number, list)
		}
		r.deaths.ended(number)
		r.mu.Lock()
		r.running--
		r.lent -= need
		r.ready.Signal() // the memory may be what another waits for
		r.mu.Unlock()
	}
}

// alone runs a task and answers it.
func (r *runner) alone(slot int, t *task) {
	if t.ctx.Err() != nil {
		r.end(t, market.Ended{Outcome: market.OutcomeStopped})
		return
	}
	r.begin(slot, t)
	r.end(t, r.execute(t))
}

// begin notes that a task runs now.
func (r *runner) begin(slot int, t *task) {
	r.deaths.began(slot, &t.Run)
	r.mu.Lock()
	if t.began.IsZero() {
		t.began = time.Now()
	}
	r.mu.Unlock()
	r.log.Debug("a task begins", "job", t.Job.ID, "stage", t.Stage, "task", t.Index)
}

// need is the memory that a task is lent.
func (t *task) need() uint64 { return t.Job.Manifest.Stages[t.Stage].Limits.Memory }

// nextReady waits for tasks to run, one or several in a row; nil: it closes.
func (r *runner) nextReady() []*task {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		if r.closed {
			return nil
		}
		for i, t := range r.queue {
			if t.state != taskReady {
				continue
			}
			if r.running > 0 && r.lent+t.need() > r.memory {
				break // it is its turn: those behind it do not take what it waits for
			}
			list := r.row(i)
			for _, t := range list {
				t.state = taskRunning
			}
			r.queue = slices.DeleteFunc(r.queue, func(t *task) bool { return t.state == taskRunning })
			r.running++
			r.lent += t.need()
			return list
		}
		r.ready.Wait()
	}
}

// end answers a run, once.
func (r *runner) end(t *task, e market.Ended) {
	r.log.Debug("a task has ended", "job", t.Job.ID, "stage", t.Stage, "task", t.Index, "wall", e.Wall)
	r.mu.Lock()
	delete(r.tasks, t.ID)
	input := t.input
	t.input, t.log = nil, ""
	r.habit.ran(t, &e)
	r.mu.Unlock()
	t.cancel()
	if input != nil {
		input.release()
	}
	switch e.Outcome {
	case market.OutcomeDone:
		r.count.done.Add(1)
	case market.OutcomeFailed:
		r.count.failed.Add(1)
	case market.OutcomeReleased:
		r.count.released.Add(1)
	case market.OutcomeStopped:
		r.count.stopped.Add(1)
	}
	r.count.wall.Add(int64(e.Wall))
	e.ID = t.ID
	r.post(e)
}

// runningTask is a task that runs here now.
type runningTask struct {
	job   protocol.JobID
	stage protocol.StageIndex
	index protocol.TaskIndex
	log   string // host file; there is none before the first byte
	since time.Time

	compiling bool // its program is not ready
	permille  int  // how far it says it is; below 0: it does not say
}

// now lists the tasks that run, of a job or ("") of all.
func (r *runner) now(id protocol.JobID) (list []runningTask) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.tasks {
		if !t.began.IsZero() && (id == "" || t.Job.ID == id) {
			compiling := t.input != nil && r.pool.Compiling(t.input.task.Program.ID)
			list = append(list, runningTask{t.Job.ID, t.Stage, t.Index, t.log, t.began, compiling, int(t.told.Load()) - 1})
		}
	}
	return list
}

// levels are the numbers of slots that run tasks and of waiting tasks.
func (r *runner) levels() (running, waiting int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.running, len(r.queue)
}
