package node

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/node/api"
	"github.com/ipfs/go-cid"
)

// Brief tasks are run in rows. One among them that takes long is begun again on its own, once, and those behind it do not wait for it: every
// task has its result.
func TestBriefTasksAreRunInRows(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	cfg.Slots = 2
	n := startNode(t, cfg)
	const tasks = 1500
	var lines strings.Builder
	for i := range tasks {
		rounds := 0
		if i%500 == 250 {
			rounds = 250
		}
		fmt.Fprintf(&lines, "%d\n", rounds)
	}
	in, err := n.Import(t.Context(), api.ImportOptions{Form: api.FormLines}, &items{names: []string{"lines"}, texts: []string{lines.String()}})
	if err != nil {
		t.Fatal(err)
	}
	program := n.program("burn")
	program.Args = []string{"{1}"}
	job := n.submit(api.SubmitRequest{Map: program, Index: in.Index, Replicas: ptr(0)})
	if s := n.await(job); s.State != api.StateDone {
		t.Fatalf("%+v", s)
	}
	c, sum := n.results(job, api.ResultsOptions{})
	if sum.Outputs != tasks {
		t.Fatalf("%+v", sum)
	}
	long := string(c.texts[250])
	for i, text := range c.texts {
		if want := map[bool]string{true: long, false: "0\n"}[i%500 == 250]; string(text) != want {
			t.Errorf("task %d wrote %q, want %q", i, text, want)
		}
	}
	count := &n.runner.count
	t.Logf("%d rows went well, %d were broken", count.rows.Load(), count.broken.Load())
	if done := count.done.Load(); done != tasks || count.failed.Load()+count.released.Load() != 0 {
		t.Errorf("%d runs are done, %d failed, %d given back", done, count.failed.Load(), count.released.Load())
	}
	if count.rows.Load() == 0 {
		t.Error("no tasks ran in a row")
	}
	eventually(t, "no slot is taken, and nothing lent", func() bool {
		running, waiting := n.runner.levels()
		n.runner.mu.Lock()
		defer n.runner.mu.Unlock()
		return running+waiting == 0 && n.runner.lent == 0
	})
}

// A job that is cancelled while its tasks run in rows stops at once.
func TestRowsAreCancelled(t *testing.T) {
	n := startNode(t, testConfig(t, t.TempDir()))
	job := n.submit(api.SubmitRequest{Map: n.program("noop"), Array: ptr(uint64(1_000_000)), Replicas: ptr(0)})
	eventually(t, "tasks run in rows", func() bool { return n.runner.count.rows.Load() > 3 })
	if _, err := n.Control(t.Context(), job, api.VerbCancel); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nothing runs any more", func() bool {
		running, waiting := n.runner.levels()
		return running+waiting == 0 && len(n.runner.now("")) == 0
	})
	if s := n.await(job); s.State != api.StateCancelled {
		t.Errorf("%+v", s)
	}
	if n.runner.count.failed.Load() != 0 {
		t.Error("tasks have failed")
	}
	if s := n.await(n.done()); s.State != api.StateDone {
		t.Errorf("the next job: %+v", s)
	}
}

// Tasks whose requests are too large for a row are run one by one.
func TestRowsWithoutRoom(t *testing.T) {
	n := startNode(t, testConfig(t, t.TempDir()))
	program := n.program("noop")
	program.Args = []string{strings.Repeat("x", 20_000)}
	job := n.submit(api.SubmitRequest{Map: program, Array: ptr(uint64(200)), Replicas: ptr(0)})
	if s := n.await(job); s.State != api.StateDone {
		t.Fatalf("%+v", s)
	}
	if count := &n.runner.count; count.done.Load() != 200 || count.rows.Load() != 0 {
		t.Errorf("%d runs are done, %d rows went well", count.done.Load(), count.rows.Load())
	}
}

// Rows that come to a task that takes long get rare; one that only the machine held up is forgotten.
func TestHabit(t *testing.T) {
	var h habit
	brief, long := market.Ended{Outcome: market.OutcomeDone}, market.Ended{Outcome: market.OutcomeDone, Wall: time.Second}
	q := &task{Run: market.Run{Job: &job.Signed{ID: "a"}}}
	runs := func() (n int) { // brief ones until rows are tried
		for ; !h.fits(q); n++ {
			h.ran(q, &brief)
		}
		return n
	}
	if n := runs(); n != briefRuns {
		t.Errorf("%d runs before the first row", n)
	}
	for _, want := range []int{32, 128, 512} {
		h.rowed(q, false)
		if n := runs(); n != want {
			t.Errorf("%d runs before the next row, want %d", n, want)
		}
	}
	for range 6 {
		h.rowed(q, true)
	}
	if h.need != briefRuns {
		t.Errorf("%d runs after rows that went well", h.need)
	}
	for range 10 { // as many in a row cost no row
		h.ran(q, &brief)
	}
	h.ran(q, &long)
	if !h.fits(q) {
		t.Error("one run that took long, of many, ends all rows")
	}
	h.ran(q, &long)
	if h.fits(q) {
		t.Error("two such do not")
	}
	other := &task{Run: market.Run{Job: q.Job, Stage: 1}}
	h.ran(other, &brief)
	if h.rowed(q, false); h.fits(q) || h.need != briefRuns || h.brief != 1 {
		t.Errorf("another stage begins with %+v", h)
	}
	h.brief = h.need
	for _, never := range []*task{
		{Run: market.Run{Job: q.Job, Stage: 1, Alone: true}}, {Run: market.Run{Job: q.Job, Stage: 1, States: make([]cid.Cid, 1)}},
	} {
		if !h.fits(other) || h.fits(never) {
			t.Errorf("%+v is run in a row", never.Run)
		}
	}
}
