package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/compute-mesh/mesh/node/api"
	"github.com/compute-mesh/mesh/testnet/built"
)

// burn is the argument of a burn that takes about so long, as measured on one that has the
// peers to itself; what is measured beside others' load is bounded by what machines do.
func burn(t *testing.T, p peer, d time.Duration) int {
	t.Helper()
	const rounds, least = 100, 4 * time.Millisecond
	took := func(n int) time.Duration {
		s := p.status(t, strings.TrimSpace(p.ok(t, "submit", "--array", "1", "--map", program("burn")+" "+strconv.Itoa(n))))
		return s.Ended.Sub(s.Created)
	}
	nothing := min(took(0), took(0), took(0)) // the first compiles it
	round := max((took(rounds)-nothing)/rounds, least)
	return int(max(d/round, 1))
}

// work is tasks that burn about n rounds each, and what they give: neighbours give
// different results, so none can stand for another.
type work struct {
	n     int
	three []string
}

func newWork(t *testing.T, p peer, n int) *work {
	t.Helper()
	w := &work{n: n}
	w.three = strings.SplitAfter(p.ok(t, append([]string{"submit", "-o", "-"}, w.args(t, 3)...)...), "\n")
	return w
}

// args is what a submit of so many tasks has.
func (w *work) args(t *testing.T, tasks int) []string {
	t.Helper()
	var b strings.Builder
	for i := range tasks {
		fmt.Fprintln(&b, w.n+i%3)
	}
	return []string{"--map", program("burn") + " {1}", "--args-from", write(t, filepath.Join(t.TempDir(), "list"), b.String())}
}

// want is the results of so many tasks.
func (w *work) want(tasks int) string {
	var b strings.Builder
	for i := range tasks {
		b.WriteString(w.three[i%3])
	}
	return b.String()
}

// midway submits a job and returns when it is as the caller wants it and still goes on. A
// machine may be too slow to look in time: a job that has ended before is followed by one
// of twice the tasks.
func (w *work) midway(t *testing.T, p peer, tasks int, holds func(job string) bool) (job, want string) {
	t.Helper()
	for {
		job = p.submit(t, w.args(t, tasks)...)
		ended := false
		eventually(t, "the job is midway", func() bool {
			held := holds(job)
			ended = p.status(t, job).State.Ended()
			return held || ended
		})
		if !ended {
			return job, w.want(tasks)
		}
		tasks *= 2
	}
}

// A job that one peer announces is run by all: how much each does is a matter of the load. Where the machine is so busy that one
// gets to nothing before the job has ended, the next has twice the tasks.
func TestEveryPeerRunsItsShare(t *testing.T) {
	m := network(t)
	w := newWork(t, m.peers[0], burn(t, m.peers[0], 50*time.Millisecond))
	for tasks, idle := 200, true; idle; tasks *= 2 {
		if tasks > 800 {
			t.Fatal("a peer ran nothing of three jobs")
		}
		job, want := m.peers[0].submit(t, w.args(t, tasks)...), w.want(tasks)
		m.peers[0].wait(t, job)
		s := m.peers[1].status(t, job)
		sum := uint64(0)
		idle = false
		for _, p := range s.Peers {
			sum += p.Tasks
			idle = idle || p.Tasks == 0
		}
		if len(s.Peers) != sharedPeers || sum != uint64(tasks) {
			t.Errorf("%d tasks by %d peers: %+v", sum, len(s.Peers), s.Peers)
		}
		for _, p := range m.peers {
			if got := p.ok(t, "get", job, "-o", "-"); got != want {
				t.Errorf("%s has other results", p.home)
			}
		}
	}
}

// The same job gives the same bytes, whoever submits it and whoever runs its tasks.
func TestResultsDoNotDependOnWhoRuns(t *testing.T) {
	m := network(t)
	dir := t.TempDir()
	text := write(t, filepath.Join(dir, "text"), strings.Repeat("what the peers count is counted once\nby one peer or another\n", 4000))
	results := map[string]int{}
	for i, p := range m.peers {
		got := p.ok(t, "submit", "--input", text, "--split", "lines:8KB", "--map", program("wordcount")+" count", "-o", "-")
		results[got] = i
	}
	if len(results) != 1 {
		t.Errorf("%d results of one job", len(results))
	}
}

// faultTasks is how many tasks the jobs have that something happens to: enough for seconds.
const faultTasks = 240

// TestFaults has one testnet for what stops, ends and joins while jobs run.
func TestFaults(t *testing.T) {
	m := up(t, 4)
	n := burn(t, m.peers[0], 20*time.Millisecond)
	w := newWork(t, m.peers[0], n)
	t.Run("the submitter is stopped", func(t *testing.T) { submitterStops(t, m, w) })
	t.Run("a worker is killed", func(t *testing.T) { workerDies(t, m, w) })
	t.Run("a peer comes back", func(t *testing.T) { peerReturns(t, m) })
	t.Run("a peer joins late", func(t *testing.T) { peerJoinsLate(t, m) })
	t.Run("a job is cancelled", func(t *testing.T) { jobIsCancelled(t, m) })
}

// ran is how many results of a job are a peer's.
func ran(s api.Status, peer string) uint64 {
	if i := slices.IndexFunc(s.Peers, func(p api.PeerWork) bool { return p.Peer == peer }); i >= 0 {
		return s.Peers[i].Tasks
	}
	return 0
}

func submitterStops(t *testing.T, m *mesh, w *work) {
	submitter, other := m.peers[0], m.peers[1]
	who := submitter.self(t)
	job, want := w.midway(t, submitter, faultTasks, func(job string) bool {
		return slices.ContainsFunc(other.status(t, job).Peers, func(p api.PeerWork) bool { return p.Tasks > 0 && p.Peer != who.Peer })
	})
	signal(t, who.PID, syscall.SIGSTOP)
	defer signal(t, who.PID, syscall.SIGCONT)
	other.wait(t, job)
	if got := m.peers[2].ok(t, "get", job, "-o", "-"); got != want {
		t.Error("other results without the submitter")
	}
	signal(t, who.PID, syscall.SIGCONT)
	submitter.wait(t, job)
	if got := submitter.ok(t, "get", job, "-o", "-"); got != want {
		t.Error("the submitter has other results when it goes on")
	}
	if s := submitter.status(t, job); s.Done != s.Tasks || s.Failed != 0 {
		t.Errorf("the submitter says %+v", s)
	}
}

func workerDies(t *testing.T, m *mesh, w *work) {
	const victim = 3
	pid := m.peers[victim].self(t).PID
	job, want := w.midway(t, m.peers[1], faultTasks, func(string) bool { return m.peers[victim].self(t).Running > 0 })
	tasks := taskProcesses(t, pid)
	m.typed(t, "kill", strconv.Itoa(victim)).want(t, 0)
	for _, id := range tasks {
		if session(id) != 0 {
			t.Errorf("task process %d of the killed peer lives", id)
		}
	}
	if len(tasks) == 0 {
		t.Error("the worker ran its tasks in no process")
	}
	m.peers[1].wait(t, job)
	if got := m.peers[2].ok(t, "get", job, "-o", "-"); got != want {
		t.Error("other results without the worker")
	}
}

func peerReturns(t *testing.T, m *mesh) {
	file := write(t, filepath.Join(t.TempDir(), "f"), "kept\n")
	p := m.peers[2]
	before := p.self(t)
	ids := func() (ids []string) {
		var list struct{ Jobs []api.Summary }
		p.object(t, &list, "ls")
		for _, j := range list.Jobs {
			ids = append(ids, j.Job+" "+string(j.State))
		}
		slices.Sort(ids)
		return ids
	}
	jobs := ids()
	cid, _, _ := strings.Cut(p.ok(t, "add", file), " ")
	m.typed(t, "restart", "2").want(t, 0)
	after := p.self(t)
	if after.Peer != before.Peer || after.Owner != before.Owner || after.PID == before.PID || after.Addrs[0] != before.Addrs[0] {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if again := ids(); len(jobs) < 2 || !slices.Equal(again, jobs) {
		t.Errorf("before the restart %q, after it %q", jobs, again)
	}
	if got := p.ok(t, "cat", cid); got != "kept\n" {
		t.Errorf("the file that was added: %q", got)
	}
	m.typed(t, "restart", "3").want(t, 0) // it was killed
}

func peerJoinsLate(t *testing.T, m *mesh) {
	done := m.peers[2].submit(t, "--array", "3", "--map", program("index"))
	m.peers[2].wait(t, done)
	job := m.peers[2].submit(t, "--array", "20", "--map", contract+" loop")
	late := m.add(t)
	eventually(t, "the late peer runs a task", func() bool { return late.self(t).Running > 0 })
	m.peers[2].ok(t, "cancel", job)
	if got := late.ok(t, "get", done, "-o", "-"); got != "0\n1\n2\n" {
		t.Errorf("the late peer has other results: %q", got)
	}
}

func jobIsCancelled(t *testing.T, m *mesh) {
	job := m.peers[0].submit(t, "--array", "20", "--map", contract+" loop")
	var tasks []int
	for _, p := range m.peers {
		pid := p.self(t).PID
		eventually(t, "every peer runs a task", func() bool {
			running := slices.DeleteFunc(taskProcesses(t, pid), func(id int) bool { return !computes(id) })
			tasks = append(tasks, running...)
			return len(running) > 0
		})
	}
	got := m.peers[0].ok(t, "cancel", job)
	if !strings.HasPrefix(got, job+" cancelled\n") || strings.Count(got, "\nstopped  ") < 3 {
		t.Errorf("mesh cancel printed %q, want at least the keepers that have stopped", got)
	}
	eventually(t, "the task processes have ended", func() bool {
		tasks = slices.DeleteFunc(tasks, func(id int) bool { return !computes(id) })
		return len(tasks) == 0
	})
	late := m.add(t)
	eventually(t, "the late peer knows of the cancel", func() bool {
		return late.status(t, job).State == api.StateCancelled
	})
	for _, p := range m.peers {
		if s := p.self(t); s.Running > 0 {
			t.Errorf("%s runs %d tasks", p.home, s.Running)
		}
	}
	m.peers[1].run(t, "wait", job).want(t, 1, "cancelled")
	m.peers[1].run(t, "get", job, "-o", "-").want(t, 1, "cancelled")
	m.peers[0].run(t, "cancel", job) // once more is no harm
	if s := m.peers[1].run(t, "cancel", job); s.status != 1 || !strings.Contains(s.err, "owner") {
		t.Errorf("cancel by another: %d %s", s.status, s.err)
	}
}

// A peer whose only bootstrap address is dead hears of the next job: by gossip, and without
// gossip by asking the peers it knows.
func TestTheBootstrapPeerIsGone(t *testing.T) {
	for name, flags := range map[string][]string{"gossip": nil, "no gossip": {"--gossip=false"}} {
		t.Run(name, func(t *testing.T) {
			dir := func() string { return t.TempDir() }
			first := start(t, dir(), append([]string{"--slots", "0"}, flags...)...)
			flags := append([]string{"--bootstrap", first.address(t)}, flags...)
			submitter := start(t, dir(), append([]string{"--slots", "0"}, flags...)...)
			worker := start(t, dir(), append([]string{"--slots", "1"}, flags...)...)
			eventually(t, "the peers know each other", func() bool {
				return submitter.self(t).Peers == 2 && worker.self(t).Peers == 2
			})
			first.kill(t)
			if got := submitter.ok(t, "submit", "--array", "3", "--map", program("index"), "-o", "-"); got != "0\n1\n2\n" {
				t.Errorf("%q", got)
			}
		})
	}
}

// A peer that runs nothing submits, and gives the results of jobs that it had no part in.
func TestAPeerWithoutSlots(t *testing.T) {
	m := network(t)
	idle := start(t, t.TempDir(), "--slots", "0", "--mesh", m.peers[0].self(t).Mesh, "--bootstrap", m.peers[1].address(t))
	eventually(t, "it knows the others", func() bool { return idle.self(t).Peers >= sharedPeers })
	file := write(t, filepath.Join(t.TempDir(), "f"), numbers(0, 5000))
	job := m.peers[0].submit(t, "--input", file, "--split", "lines:4KB", "--map", contract+" cat")
	m.peers[0].wait(t, job)
	if got := idle.ok(t, "get", job, "-o", "-", "--wait"); got != numbers(0, 5000) {
		t.Errorf("%d bytes of results", len(got))
	}
	if got := idle.ok(t, "submit", "--array", "2", "--map", program("index"), "-o", "-"); got != "0\n1\n" {
		t.Errorf("its own job: %q", got)
	}
	if n := ran(m.peers[0].status(t, job), idle.self(t).Peer); n > 0 {
		t.Errorf("it ran %d tasks", n)
	}
}

// Both engines give the same bytes, in a mesh that has both.
func TestEnginesAgree(t *testing.T) {
	without := filepath.Join(bin, "wazero")
	if _, err := os.Stat(filepath.Join(without, "meshd")); err != nil {
		without = t.TempDir()
		if err := built.Commands(without, []string{"CGO_ENABLED=0"}, "../../cmd/meshd"); err != nil {
			t.Fatal(err)
		}
	}
	m := network(t)
	pure := startProgram(t, filepath.Join(without, "meshd"), t.TempDir(), "--slots", "1")
	if s := pure.self(t); s.Engine != "wazero" {
		t.Fatalf("the peer built without cgo has %s", s.Engine)
	}
	submitter := start(t, t.TempDir(), "--slots", "0", "--bootstrap", pure.address(t))
	for _, part := range []string{"floats", "random", "clock", "tree", "files", "args"} {
		args := []string{"submit", "--array", "2", "--file", absolute("doc.go") + ":a.txt", "--map", contract + " " + part, "-o", "-"}
		a, b := submitter.ok(t, args...), m.peers[0].ok(t, args...)
		if a != b || a == "" {
			t.Errorf("%s: wazero gave %q, %s %q", part, a, m.peers[0].self(t).Engine, b)
		}
	}
}
