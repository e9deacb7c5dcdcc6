package e2e

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// begins are the tasks of a job that a peer which logs all has begun, in their order.
func (p peer) begins(t *testing.T, job string) (list []begin) {
	t.Helper()
	for _, found := range taskBegins.FindAllStringSubmatch(read(t, p.log), -1) {
		if found[2] != job {
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, found[1])
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, begin{found[3], at})
	}
	return list
}

type begin struct {
	task string
	at   time.Time
}

var taskBegins = regexp.MustCompile(`(?m)^time=(\S+) level=DEBUG msg="a task begins" job=(\S+) stage=0 task=(\d+)$`)

// workers are peers that run tasks which never end: what one began last is what it runs.
type workers struct {
	keeper *daemon
	peers  []*daemon
}

// fill starts as many as are missing, and waits until all know each other.
func (w *workers) fill(t *testing.T, n int) {
	t.Helper()
	for len(w.peers) < n {
		w.peers = append(w.peers, start(t, t.TempDir(), "--slots", "1", "--bootstrap", w.keeper.address(t), "--log-level", "debug"))
	}
	eventually(t, "all peers know each other", func() bool {
		return !slices.ContainsFunc(w.peers, func(d *daemon) bool { return d.self(t).Peers < n })
	})
}

// running is who runs each task of a job.
func (w *workers) running(t *testing.T, job string) map[string][]*daemon {
	t.Helper()
	by := map[string][]*daemon{}
	for _, p := range w.peers {
		if began := p.begins(t, job); len(began) > 0 && p.self(t).Running > 0 {
			task := began[len(began)-1].task
			by[task] = append(by[task], p)
		}
	}
	return by
}

// kill kills one, for good.
func (w *workers) kill(t *testing.T, p *daemon) {
	t.Helper()
	p.kill(t)
	w.peers = slices.DeleteFunc(w.peers, func(d *daemon) bool { return d == p })
}

// victim waits until each task runs once, and gives a peer that runs one. Of two peers that run the same task, as one was
// taken for dead when it was only slow, one goes.
func (w *workers) victim(t *testing.T, job string, tasks int) (victim *daemon, task string) {
	t.Helper()
	eventually(t, "all tasks run", func() bool {
		by := w.running(t, job)
		for id, peers := range by {
			if len(peers) > 1 {
				w.kill(t, peers[0])
				w.fill(t, tasks+1)
				return false
			}
			victim, task = peers[0], id
		}
		return len(by) == tasks
	})
	return victim, task
}

// A killed worker's task runs elsewhere soon: the peers' own logs tell when. Each that is
// killed is followed by a new one, so that one is always free.
func TestChaosAKilledWorkersTaskRunsElsewhere(t *testing.T) {
	const tasks = 4
	w := &workers{keeper: start(t, t.TempDir(), "--slots", "0")}
	w.fill(t, tasks+1)
	var took []time.Duration
	for range size(3, 50) {
		// A new job each time: a task whose peers go again and again is taken up with more care.
		job := w.keeper.submit(t, "--array", strconv.Itoa(tasks), "--map", contract+" loop")
		victim, task := w.victim(t, job, tasks)
		killed := time.Now()
		w.kill(t, victim)
		var at time.Time
		eventually(t, "the task runs elsewhere", func() bool {
			for _, p := range w.peers {
				for _, b := range p.begins(t, job) {
					if b.task == task && b.at.After(killed) {
						at = b.at
					}
				}
			}
			return !at.IsZero()
		})
		took = append(took, at.Sub(killed))
		w.keeper.ok(t, "cancel", job)
		w.fill(t, tasks+1)
		eventually(t, "nothing runs", func() bool {
			return !slices.ContainsFunc(w.peers, func(d *daemon) bool { return d.self(t).Running > 0 })
		})
	}
	spread(t, "from kill -9 to running elsewhere", took)
}

// A task that takes checkpoints goes on from its last one when its peer is killed, and gives
// the bytes that it gives undisturbed.
func TestChaosATaskGoesOnFromItsCheckpoint(t *testing.T) {
	m := up(t, 3)
	rounds, every, killAt := size(40, 600), size(5, 50), size(20, 450) // of about a tenth of a second
	args := []string{"--array", "1", "--map", fmt.Sprintf("%s %d %d", program("longcount"), rounds, every)}
	undisturbed := m.peers[0].submit(t, args...)
	m.peers[0].wait(t, undisturbed)
	want := m.peers[0].ok(t, "get", undisturbed, "-o", "-")

	job := m.peers[0].submit(t, args...)
	victim := -1
	eventually(t, "a peer runs the task", func() bool {
		victim = slices.IndexFunc(m.peers, func(p peer) bool { return p.self(t).Running > 0 })
		return victim >= 0
	})
	watcher := m.peers[(victim+1)%len(m.peers)]
	log := watcher.begin(t, "logs", "-f", job+"/0")
	saved := map[int]time.Time{}
	last := 0
	for last < killAt {
		if n, ok := strings.CutPrefix(strings.TrimSpace(log.line(t)), "saved round "); ok {
			last, _ = strconv.Atoi(n)
			saved[last] = time.Now()
		}
	}
	after(size(0, saved[last].Sub(saved[last-every])*3/4)) // far from the checkpoint, and before the next
	m.typed(t, "kill", strconv.Itoa(victim)).want(t, 0)
	killed := time.Now()
	log.interrupt(t)
	watcher.wait(t, job)
	if got := watcher.ok(t, "get", job, "-o", "-"); got != want {
		t.Errorf("the task that went on gives other bytes: %q, want %q", got, want)
	}
	first, _, _ := strings.Cut(watcher.ok(t, "logs", job+"/0"), "\n")
	var from, of int
	if _, err := fmt.Sscanf(first, "goes on after round %d of %d", &from, &of); err != nil || saved[from].IsZero() {
		t.Fatalf("the task that was killed at round %d did not go on from a checkpoint: %q", killAt, first)
	}
	figure(t, "work that was done again", killed.Sub(saved[from]))
}
