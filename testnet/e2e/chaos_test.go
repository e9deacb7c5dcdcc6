package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/compute-mesh/mesh/node/api"
)

// after lets the peers go on for a while before the next fault: what happens meanwhile is
// theirs to choose.
func after(d time.Duration) { time.Sleep(d) }

// The submitter's peer is killed as soon as it may be, two more at random times; a peer
// that ran nothing gives the results.
func TestChaosThreeOfSixPeersAreKilled(t *testing.T) {
	m := up(t, 6)
	idle := start(t, t.TempDir(), "--slots", "0", "--mesh", m.peers[0].self(t).Mesh, "--bootstrap", m.peers[5].address(t))
	tasks := size(100, 200)
	task := size(50*time.Millisecond, 200*time.Millisecond)
	w := newWork(t, m.peers[0], burn(t, m.peers[0], task))
	whole := time.Duration(tasks) * task / 2 // on two processors
	for seed := range size(1, 20) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { threeDie(t, m, idle.peer, w, tasks, whole, uint64(seed)) })
	}
}

func threeDie(t *testing.T, m *mesh, idle peer, w *work, tasks int, whole time.Duration, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 3))
	order := random.Perm(len(m.peers))
	began := time.Now()
	job := m.peers[order[0]].submit(t, w.args(t, tasks)...)
	after(time.Second)
	for _, i := range order[:3] {
		m.typed(t, "kill", strconv.Itoa(i)).want(t, 0)
		after(time.Duration(random.Int64N(int64(whole) / 4)))
	}
	idle.wait(t, job)
	figure(t, "makespan", time.Since(began))
	if got := idle.ok(t, "get", job, "-o", "-"); got != w.want(tasks) {
		t.Errorf("wrong results: %d bytes, want %d", len(got), len(w.want(tasks)))
	}
	if s := idle.status(t, job); s.Done != uint64(tasks) || s.Failed != 0 {
		t.Errorf("%d of %d done, %d failed", s.Done, tasks, s.Failed)
	}
	for _, i := range order[:3] {
		m.typed(t, "restart", strconv.Itoa(i)).want(t, 0)
	}
}

// A worker that stands still for a while is taken for dead; what it reports when it goes on
// is counted once or not at all.
func TestChaosAWorkerStandsStill(t *testing.T) {
	m := up(t, 4)
	w := newWork(t, m.peers[0], burn(t, m.peers[0], size(20*time.Millisecond, 100*time.Millisecond)))
	const victim = 2
	job, want := w.midway(t, m.peers[0], faultTasks, func(string) bool { return m.peers[victim].self(t).Running > 0 })
	m.typed(t, "pause", strconv.Itoa(victim)).want(t, 0)
	after(size(6*time.Second, 10*time.Second))
	m.typed(t, "resume", strconv.Itoa(victim)).want(t, 0)
	counted(t, m.peers, job, want)
}

// counted waits until a job is done at all these peers: each has one result a task, the same
// bytes. Who ran a task is not in the ledger for good, so the peers' own counts may differ.
func counted(t *testing.T, peers []peer, job, want string) {
	t.Helper()
	for _, p := range peers {
		p.wait(t, job)
		if got := p.ok(t, "get", job, "-o", "-"); got != want {
			t.Errorf("%s gives %d bytes, want %d", p.home, len(got), len(want))
		}
		if s := p.status(t, job); s.Done != s.Tasks || s.Failed != 0 {
			t.Errorf("%s: %d of %d tasks are done, %d failed", p.home, s.Done, s.Tasks, s.Failed)
		}
	}
}

// All peers are killed at once, as by a power cut; when they are back the job goes on, and
// nobody has to say so.
func TestChaosAllPeersAreKilledAtOnce(t *testing.T) {
	m := up(t, 4)
	w := newWork(t, m.peers[0], burn(t, m.peers[0], 20*time.Millisecond))
	var pids []int
	for _, p := range m.peers {
		pids = append(pids, p.self(t).PID)
	}
	job, want := w.midway(t, m.peers[0], faultTasks, func(job string) bool { return m.peers[1].status(t, job).Done > 0 })
	for _, pid := range pids {
		signal(t, pid, syscall.SIGKILL)
	}
	for i := range m.peers {
		m.typed(t, "kill", strconv.Itoa(i)).want(t, 0) // until its tasks are gone, too
	}
	began := time.Now()
	for i := range m.peers {
		m.typed(t, "restart", strconv.Itoa(i)).want(t, 0)
	}
	counted(t, m.peers, job, want)
	figure(t, "from the restart to the end", time.Since(began))
}

// The mesh parts into halves that both have a keeper: both work on. When it has healed there
// is one result a task, and all keepers have the same ledger.
func TestChaosBothSidesOfAPartitionWork(t *testing.T) {
	m := up(t, 6)
	a := newAsker(t, m.peers[0].self(t).Mesh)
	ids := make([]string, len(m.peers))
	for i, p := range m.peers {
		ids[i] = p.self(t).Peer
	}
	w := newWork(t, m.peers[0], burn(t, m.peers[0], size(30*time.Millisecond, 200*time.Millisecond)))
	job, want := w.midway(t, m.peers[0], 2*faultTasks, func(string) bool { return true })
	left, right := halves(t, ids, a.keepers(t, m.peers[0], job))
	m.typed(t, "partition", list(left), list(right)).want(t, 0)
	before := [2]uint64{m.peers[left[0]].status(t, job).Done, m.peers[right[0]].status(t, job).Done}
	if !*long {
		for side, i := range []int{left[0], right[0]} {
			eventually(t, "both sides work", func() bool { return m.peers[i].status(t, job).Done > before[side] })
		}
	}
	after(size(0, 20*time.Second))
	for side, i := range []int{left[0], right[0]} {
		s := m.peers[i].status(t, job)
		figure(t, fmt.Sprintf("results of side %d while parted", side), s.Done-before[side])
		if s.Done <= before[side] {
			t.Errorf("side %d did nothing while the mesh was parted: %d of %d done", side, s.Done, s.Tasks)
		}
	}
	m.typed(t, "heal").want(t, 0)
	counted(t, m.peers, job, want)
	var ledgers [][]string
	keepers := a.keepers(t, m.peers[0], job)
	for i, p := range m.peers {
		if !slices.Contains(keepers, ids[i]) {
			continue
		}
		eventually(t, "the keepers' ledgers are equal", func() bool {
			r := a.records(t, p, job)
			return len(r) > 0 && (len(ledgers) == 0 || slices.Equal(r, ledgers[0]))
		})
		ledgers = append(ledgers, a.records(t, p, job))
	}
	if len(ledgers) < 2 {
		t.Errorf("%d keepers are left", len(ledgers))
	}
}

// halves parts the peers into two sides with a keeper each.
func halves(t *testing.T, ids, keepers []string) (left, right []int) {
	t.Helper()
	if len(keepers) < 2 {
		t.Fatalf("too few keepers for two sides: %q", keepers)
	}
	for _, keeper := range []bool{true, false} { // keepers are dealt out first
		for i, id := range ids {
			switch {
			case slices.Contains(keepers, id) != keeper:
			case len(left) <= len(right):
				left = append(left, i)
			default:
				right = append(right, i)
			}
		}
	}
	return left, right
}

// list is peers as a testnet's commands name them.
func list(peers []int) string {
	var text []string
	for _, i := range peers {
		text = append(text, strconv.Itoa(i))
	}
	return strings.Join(text, ",")
}

// One of four workers is killed when two fifths are done: what it costs is its lost work.
func TestChaosAWorkerLessCostsItsWorkAlone(t *testing.T) {
	m := up(t, 4)
	w := newWork(t, m.peers[0], burn(t, m.peers[0], size(20*time.Millisecond, 200*time.Millisecond)))
	tasks := size(100, 400)
	run := func(disturb func(job string)) (string, time.Duration) {
		job := m.peers[0].submit(t, w.args(t, tasks)...)
		disturb(job)
		counted(t, m.peers[:1], job, w.want(tasks))
		s := m.peers[0].status(t, job)
		return job, s.Ended.Sub(s.Created)
	}
	_, undisturbed := run(func(string) {})
	_, disturbed := run(func(job string) {
		eventually(t, "two fifths are done", func() bool { return m.peers[0].status(t, job).Done >= uint64(tasks)*2/5 })
		m.typed(t, "kill", "3").want(t, 0)
	})
	figure(t, "undisturbed", undisturbed)
	figure(t, "with one of four workers killed at 40 %", disturbed)
	figure(t, "longer, percent", fmt.Sprintf("%.1f", 100*(disturbed.Seconds()/undisturbed.Seconds()-1)))
}

// A cancel of many tasks, running and pending, leaves no process running one; who joins
// later does not begin.
func TestChaosManyTasksAreCancelled(t *testing.T) {
	m := up(t, 4)
	var pids []int
	for _, p := range m.peers {
		pids = append(pids, p.self(t).PID)
	}
	job := m.peers[0].submit(t, "--array", "1000", "--map", contract+" loop")
	computing := func() (n int) {
		for _, pid := range pids {
			for _, id := range taskProcesses(t, pid) {
				if computes(id) {
					n++
				}
			}
		}
		return n
	}
	eventually(t, "every peer runs a task", func() bool { return computing() >= len(pids) })
	began := time.Now()
	m.peers[0].ok(t, "cancel", job)
	eventually(t, "no process runs a task", func() bool { return computing() == 0 })
	figure(t, "from the cancel to the last task's end", time.Since(began))
	late := m.add(t)
	eventually(t, "the late peer knows of the cancel", func() bool { return late.status(t, job).State == api.StateCancelled })
	if n := late.self(t).Running; n > 0 || computing() > 0 {
		t.Errorf("after the cancel the late peer runs %d tasks, the others %d", n, computing())
	}
}
