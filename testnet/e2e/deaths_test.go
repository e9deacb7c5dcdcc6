package e2e

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/compute-mesh/mesh/node/api"
)

// A task whose meshd dies whenever it runs, wherever that is, uses up its attempts: the job fails and says so, and the mesh
// is there for the next.
func TestATaskThatKillsEveryMeshd(t *testing.T) {
	m := up(t, 3)
	watcher := m.peers[0]
	job := watcher.submit(t, "--array", "1", "--retries", "1", "--map", contract+" loop")
	kills := 0
	// Two deaths beside others at most are needed to suspect it, and two while it runs alone to fail it. A peer that
	// dies with it in a way that tells nothing may cost one more each time.
	for most := 12; watcher.status(t, job).State != api.StateFailed; kills++ {
		if kills == most {
			t.Fatalf("it still runs after %d deaths: %+v", kills, watcher.status(t, job))
		}
		victim := -1
		eventually(t, "a peer runs the task, or its job has failed", func() bool {
			victim = slices.IndexFunc(m.peers, func(p peer) bool { return p.self(t).Running > 0 })
			return victim >= 0 || watcher.status(t, job).State == api.StateFailed
		})
		if victim < 0 {
			break
		}
		m.typed(t, "kill", strconv.Itoa(victim)).want(t, 0)
		m.typed(t, "restart", strconv.Itoa(victim)).want(t, 0)
	}
	s := watcher.status(t, job)
	if !slices.ContainsFunc(s.Failures, func(f api.Failure) bool { return f.Reason == api.ReasonDeath }) {
		t.Errorf("after %d deaths: %+v", kills, s)
	}
	t.Logf("%d deaths: %s", kills, s.Reason)
	if got := watcher.ok(t, "submit", "--array", "3", "--map", program("index"), "-o", "-"); got != "0\n1\n2\n" {
		t.Errorf("afterwards: %q", got)
	}
}

// stateMagic begins a chunk that has a task's state, or its first part.
const stateMagic = "mesh state"

// states lists the chunks of tasks' states that a peer has.
func (p peer) states(t *testing.T) (files []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(p.home, "chunks", "chunks"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err == nil && bytes.HasPrefix(data, []byte(stateMagic)) {
			files = append(files, path)
		}
		return err
	})
	if err != nil && !os.IsNotExist(err) { // a chunk may go meanwhile
		t.Fatal(err)
	}
	return files
}

// The checkpoints of a task are lost with its worker, and on the keepers' disks they rot or go: whoever takes the task begins at
// its start, and gives the bytes that it gives undisturbed.
func TestACheckpointThatIsLost(t *testing.T) {
	dirs := []string{t.TempDir(), t.TempDir()}
	one := start(t, dirs[0], "--slots", "0")
	two := start(t, dirs[1], "--slots", "0", "--bootstrap", one.address(t))
	worker := start(t, t.TempDir(), "--slots", "1", "--bootstrap", one.address(t))
	eventually(t, "they know each other", func() bool { return one.self(t).Peers == 2 && two.self(t).Peers == 2 })
	const rounds, every = 60, 5
	job := one.submit(t, "--array", "1", "--replicas", "2", "--map", program("longcount")+" "+strconv.Itoa(rounds)+" "+strconv.Itoa(every))
	seen := [2]map[string]bool{{}, {}}
	eventually(t, "both keepers have seen two checkpoints: the first is on record", func() bool {
		for i, d := range []*daemon{one, two} {
			for _, file := range d.states(t) {
				seen[i][file] = true
			}
		}
		return len(seen[0]) > 1 && len(seen[1]) > 1
	})
	for _, d := range []*daemon{worker, one, two} {
		d.kill(t)
	}
	for i, d := range []*daemon{one, two} {
		for _, file := range d.states(t) {
			if i == 0 {
				if err := os.Remove(file); err != nil {
					t.Fatal(err)
				}
				continue
			}
			data := []byte(read(t, file))
			data[len(data)-1] ^= 1
			if err := os.Chmod(file, 0o600); err != nil {
				t.Fatal(err)
			}
			write(t, file, string(data))
		}
	}
	one = start(t, dirs[0], "--slots", "0")
	two = start(t, dirs[1], "--slots", "0", "--bootstrap", one.address(t))
	worker = start(t, t.TempDir(), "--slots", "1", "--bootstrap", one.address(t))
	one.wait(t, job)
	got := one.ok(t, "get", job, "-o", "-")
	if first, _, _ := strings.Cut(one.ok(t, "logs", job+"/0"), "\n"); first != "starts, 0 of "+strconv.Itoa(rounds) {
		t.Errorf("the task went on from what is lost: %q", first)
	}
	if !worker.said("a task begins at its start, not at its checkpoint") {
		t.Errorf("the worker says nothing of it: %s", worker.tail())
	}
	// Each line depends on all rounds before it, and on nothing after.
	begins := one.ok(t, "submit", "--array", "1", "--map", program("longcount")+" "+strconv.Itoa(2*every)+" "+strconv.Itoa(every), "-o", "-")
	if strings.Count(got, "\n") != rounds/every || !strings.HasPrefix(got, begins) {
		t.Errorf("the task that began again gives %q, which does not begin with %q", got, begins)
	}
}
