package node

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/node/api"
	"github.com/compute-mesh/mesh/protocol"
)

// What ran when a meshd died is told once by the next, whole records alone.
func TestDeathsAreTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), fileRunning)
	open := func(incarnation uint64) (*deaths, []market.DiedTask) {
		t.Helper()
		d, list, err := openDeaths(path, incarnation, quiet())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.close() })
		return d, list
	}
	run := func(task protocol.TaskIndex, alone bool) *market.Run {
		return &market.Run{Job: &job.Signed{ID: "a job"}, Stage: 2, Index: task, Alone: alone}
	}
	d, list := open(1)
	if len(list) > 0 {
		t.Errorf("of a new home: %v", list)
	}
	d.began(0, run(5, false))
	d.began(1, run(6, false))
	d.began(2, run(7, true))
	d.ended(1)
	d.began(3, run(8, false))
	if err := d.file.Truncate(3*deathRecord + 20); err != nil { // the last is cut off
		t.Fatal(err)
	}
	want := []market.DiedTask{{Job: "a job", Stage: 2, Index: 5}, {Job: "a job", Stage: 2, Index: 7, Alone: true}}
	d, list = open(2)
	if !slices.Equal(list, want) {
		t.Errorf("told %v, want %v", list, want)
	}
	d.began(0, run(9, false)) // while it is being told
	d.told()
	if _, list = open(3); len(list) != 1 || list[0].Index != 9 {
		t.Errorf("told %v, want task 9 alone", list)
	}
}

// A task that ran when meshd died runs alone at the next start; when meshd dies with it again, that is an attempt.
func TestTaskThatKillsMeshd(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	cfg.Slots = 2
	var jobID string
	var died []byte
	// life runs the job's two tasks until they are seen to run, and ends as if by kill -9.
	life := func() {
		t.Helper()
		n := startNode(t, cfg)
		if jobID == "" {
			jobID = n.submit(api.SubmitRequest{Map: n.contract("state", "300", "25000"), Array: ptr(uint64(2)), Replicas: ptr(0), Retries: ptr(0)})
		}
		eventually(t, "a task runs", func() bool { return len(n.runner.now("")) > 0 })
		var err error
		if died, err = os.ReadFile(n.home.path(fileRunning)); err != nil {
			t.Fatal(err)
		}
		if err := n.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(n.home.path(fileRunning), died, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	life()
	life()
	n := startNode(t, cfg)
	s := n.await(jobID)
	if s.State != api.StateFailed || !slices.ContainsFunc(s.Failures, func(f api.Failure) bool { return f.Reason == api.ReasonDeath }) {
		t.Errorf("%+v", s)
	}
}
