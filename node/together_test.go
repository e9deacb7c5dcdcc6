package node

import (
	"fmt"
	"strings"
	"testing"

	"github.com/compute-mesh/mesh/node/api"
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
			rounds = 60
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
	if running, waiting := n.runner.levels(); running+waiting != 0 || n.runner.lent != 0 {
		t.Errorf("%d run, %d wait, %d bytes are lent", running, waiting, n.runner.lent)
	}
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
