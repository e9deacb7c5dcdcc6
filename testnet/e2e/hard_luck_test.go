package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/compute-mesh/mesh/node/api"
)

// Everybody who has a job's input is gone: the job says what is missing and who had it, and
// goes on by itself when one of them is back.
func TestChaosInputThatNobodyHas(t *testing.T) {
	submitterDir, keeperDir := t.TempDir(), t.TempDir()
	submitter := start(t, submitterDir, "--slots", "0")
	keeper := start(t, keeperDir, "--slots", "0", "--bootstrap", submitter.address(t))
	listen := keeper.address(t)
	file := write(t, filepath.Join(t.TempDir(), "input"), numbers(0, 300_000)) // some 2 MB
	eventually(t, "they know each other", func() bool { return submitter.self(t).Peers == 1 })
	job := submitter.submit(t, "--replicas", "1", "--input", file, "--split", "lines:32KB",
		"--map", program("longcount")+" 2 1")
	worker := start(t, t.TempDir(), "--slots", "1", "--bootstrap", submitter.address(t), "--bootstrap", listen)
	eventually(t, "the worker has results", func() bool { return submitter.status(t, job).Done > 0 })
	last := []string{submitter.self(t).Peer, keeper.self(t).Peer}
	submitter.kill(t)
	keeper.kill(t)
	eventually(t, "the job is stalled", func() bool { return worker.status(t, job).State == api.StateStalled })
	eventually(t, "it says who had the input last", func() bool {
		why := worker.status(t, job).Reason
		return strings.Contains(why, "nobody serves chunk ") && (strings.Contains(why, last[0]) || strings.Contains(why, last[1]))
	})
	t.Log(worker.ok(t, "status", job), worker.ok(t, "why", job))
	before := worker.status(t, job).Done
	start(t, keeperDir, "--slots", "0", "--bootstrap", worker.address(t))
	eventually(t, "the job goes on", func() bool {
		s := worker.status(t, job)
		return s.State == api.StateRunning && s.Done > before
	})
}
