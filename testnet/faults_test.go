package testnet

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/compute-mesh/mesh/node/api"
)

// patience bounds every wait of these tests: it is only reached by a fault.
const patience = 3 * time.Minute

// until waits until a condition holds.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for !holds() {
		if pause(ctx) != nil {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// neighbours are the peers that peer i says it is connected to, by their index.
func neighbours(t *testing.T, n Net, i int) (list []int) {
	t.Helper()
	all, err := n.records()
	if err != nil {
		t.Fatal(err)
	}
	client, err := api.NewClient(n.Home(i))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	peers, err := client.Peers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range peers.Peers {
		list = append(list, slices.IndexFunc(all, func(r record) bool { return r.Peer == p.Peer }))
	}
	slices.Sort(list)
	return list
}

func TestFaultsAndTheirEnd(t *testing.T) {
	n, ctx := open(t), t.Context()
	if _, err := n.Up(ctx, Config{Meshd: meshd, Peers: 4, Slots: 1}); err != nil {
		t.Fatal(err)
	}
	t.Run("partition", func(t *testing.T) { testPartition(t, n) })
	t.Run("pause", func(t *testing.T) { testPause(t, n) })
	t.Run("chaos", func(t *testing.T) { testChaos(t, n) })
	t.Run("broken off", func(t *testing.T) { testChaosBrokenOff(t, n) })
}

// see waits until each peer is connected to whom it should be: what one side of a connection
// knows the other may learn a moment later.
func see(t *testing.T, n Net, want [][]int) {
	t.Helper()
	for i, w := range want {
		until(t, fmt.Sprintf("peer %d is connected to %v", i, w), func() bool { return slices.Equal(neighbours(t, n, i), w) })
	}
}

func testPartition(t *testing.T, n Net) {
	ctx := t.Context()
	whole := [][]int{{1, 2, 3}, {0, 2, 3}, {0, 1, 3}, {0, 1, 2}}
	parted := [][]int{{1}, {0}, {3}, {2}}
	for name, groups := range map[string][][]int{
		"nobody": nil, "all": {{0, 1, 2, 3}}, "twice": {{0, 1}, {1}}, "unknown": {{0}, {4}}, "negative": {{-1}},
	} {
		if err := n.Partition(ctx, groups); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := n.Kill(ctx, 1); err != nil { // it is told when it comes back
		t.Fatal(err)
	}
	until(t, "its death is noticed", func() bool { return slices.Equal(neighbours(t, n, 0), []int{2, 3}) })
	if err := n.Partition(ctx, [][]int{{1, 0}}); err != nil {
		t.Fatal(err)
	}
	for i, w := range map[int][]int{0: nil, 2: {3}, 3: {2}} {
		if got := neighbours(t, n, i); !slices.Equal(got, w) {
			t.Errorf("when partition has returned, peer %d is connected to %v, want %v", i, got, w)
		}
	}
	for _, i := range []int{1, 2} { // 1 knows 0 as its bootstrap; 2 has it on the other side
		if _, err := n.Restart(ctx, i); err != nil {
			t.Fatal(err)
		}
	}
	see(t, n, parted) // the restarted find their side
	s, err := n.Status(ctx)
	if err != nil || len(s.Partition) != 2 || !slices.Equal(s.Partition[0], []int{0, 1}) || !slices.Equal(s.Partition[1], []int{2, 3}) {
		t.Errorf("status: %v, %v", s.Partition, err)
	}
	if _, err := n.Add(ctx, 1); err == nil || !strings.Contains(err.Error(), "heal it first") {
		t.Errorf("add: %v", err)
	}
	began := time.Now()
	if err := n.Heal(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("healed after %s", time.Since(began).Round(time.Millisecond))
	see(t, n, whole)
	if s, err := n.Status(ctx); err != nil || len(s.Partition) > 0 {
		t.Errorf("status: %v, %v", s.Partition, err)
	}
}

func testPause(t *testing.T, n Net) {
	ctx := t.Context()
	for range 2 {
		if err := n.Pause(ctx, 3); err != nil {
			t.Fatal(err)
		}
	}
	s, err := n.Status(ctx)
	if err != nil || !s.Peers[3].Paused || s.Peers[3].Answers || s.Peers[2].Paused {
		t.Errorf("%+v, %v", s, err)
	}
	// A partition that comes meanwhile holds when it wakes.
	if err := n.Partition(ctx, [][]int{{3}}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := n.Resume(ctx, 3); err != nil {
			t.Fatal(err)
		}
	}
	see(t, n, [][]int{{1, 2}, {0, 2}, {0, 1}, {}})
	if err := n.Heal(ctx); err != nil {
		t.Fatal(err)
	}
	// The paused can be killed and restarted.
	if err := n.Pause(ctx, 3); err != nil {
		t.Fatal(err)
	}
	if p, err := n.Restart(ctx, 3); err != nil || p.Paused || !p.Answers {
		t.Errorf("%+v, %v", p, err)
	}
	if err := n.Pause(ctx, 3); err != nil {
		t.Fatal(err)
	}
	if err := n.Kill(ctx, 3); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{"pause": n.Pause(ctx, 3), "resume": n.Resume(ctx, 3)} {
		if err == nil || !strings.Contains(err.Error(), "restart it first") {
			t.Errorf("%s of the dead: %v", name, err)
		}
	}
	if _, err := n.Restart(ctx, 3); err != nil {
		t.Fatal(err)
	}
}

// What belongs to a peer stops and goes on with it.
func TestPauseStopsAllOfASession(t *testing.T) {
	n := open(t)
	if err := os.MkdirAll(n.Home(0), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := writeJSON(filepath.Join(n.Dir(), stateName), plan{}); err != nil {
		t.Fatal(err)
	}
	sh := exec.Command("sh", "-c", "sleep 600 & sleep 600 & wait")
	sh.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := sh.Start(); err != nil {
		t.Fatal(err)
	}
	go sh.Wait()
	r := record{PID: sh.Process.Pid}
	r.Started, _ = startTime(r.PID)
	if err := n.save(r); err != nil {
		t.Fatal(err)
	}
	until(t, "it has its tasks", func() bool { return len(r.session()) == 3 })
	stopped := func() (count int) {
		for _, pid := range r.session() {
			if s, ok := processState(pid); ok && s.stopped {
				count++
			}
		}
		return count
	}
	if err := n.Pause(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if got := stopped(); got != 3 {
		t.Errorf("paused: %d of 3 processes are stopped", got)
	}
	if err := r.goOn(); err != nil {
		t.Fatal(err)
	}
	until(t, "all go on", func() bool { return stopped() == 0 })
}

// A meshd that is no peer of a testnet can't be parted from others.
func TestProductionRefusesTheGate(t *testing.T) {
	dir := t.TempDir()
	home := filepath.Join(dir, "home")
	args := []string{"--home", home, "--mesh", "alone", "--lan=false", "--http", "off", "--listen", "/ip4/127.0.0.1/tcp/0"}
	const other = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"
	out, err := exec.Command(meshd, append(args, "--refuse", other)...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "only a peer of a testnet refuses others") {
		t.Errorf("--refuse without --testnet: %v, %s", err, out)
	}
	r, _, err := spawn(meshd, args, filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := (Net{dir}).stop(context.Background(), r, syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	})
	client, err := api.NewClient(home)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	until(t, "it answers", func() bool { _, err := client.Self(t.Context()); return err == nil })
	for _, peers := range [][]string{nil, {other}} {
		err := client.Refuse(t.Context(), peers)
		if api.KindOf(err) != api.KindForbidden || !strings.Contains(err.Error(), "no peer of a testnet") {
			t.Errorf("refuse %v: %v", peers, err)
		}
	}
}
