package testnet

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compute-mesh/mesh/testnet/built"
	"golang.org/x/sync/errgroup"
)

// meshd is the program that the tests run: the real one, built for them.
var meshd string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "testnet")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		meshd = filepath.Join(dir, "meshd")
		if err := built.Commands(dir, nil, "../cmd/meshd"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// open names a testnet that is taken down when the test ends.
func open(t *testing.T) Net {
	t.Helper()
	n, err := Open(filepath.Join(t.TempDir(), "net"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return n
}

func TestTheLifeOfATestnet(t *testing.T) {
	n, ctx := open(t), t.Context()
	s, err := n.Up(ctx, Config{Meshd: meshd, Peers: 3, Slots: 1})
	if err != nil {
		t.Fatal(err)
	}
	ports := map[string]int{}
	for i, p := range s.Peers {
		if !p.Running || !p.Answers || p.Peers != 2 || p.Index != i || p.Dashboard == "" {
			t.Errorf("after up: %+v", p)
		}
		for _, port := range append(slices.Clone(p.Addrs), p.Dashboard) {
			if other, taken := ports[port]; taken {
				t.Errorf("peers %d and %d both listen on %s", other, i, port)
			}
			ports[port] = i
		}
	}
	if log, err := os.ReadFile(n.Log(0)); err != nil || !strings.Contains(string(log), "join     meshd --mesh "+s.Mesh+" --bootstrap "+s.Peers[0].Addrs[0]) {
		t.Errorf("the log of peer 0 does not say how to join it: %s, %v", log, err)
	}
	again, err := n.Up(ctx, Config{Meshd: meshd, Peers: 3, Slots: 1})
	if err != nil || again.Peers[0].PID != s.Peers[0].PID {
		t.Errorf("up a second time: %+v, %v", again, err)
	}
	if _, err := n.Up(ctx, Config{Meshd: meshd, Peers: 4}); err == nil || !strings.Contains(err.Error(), "up with 3 peers, not 4") {
		t.Errorf("up with another number: %v", err)
	}

	before, err := n.record(1)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // killing the dead changes nothing
		if err := n.Kill(ctx, 1); err != nil {
			t.Fatal(err)
		}
		if left := before.session(); len(left) > 0 {
			t.Errorf("after kill: processes %v", left)
		}
	}
	if s, err := n.Status(ctx); err != nil || s.Peers[1].Running || !s.Peers[2].Running {
		t.Errorf("after kill: %+v, %v", s, err)
	}
	if _, err := n.Up(ctx, Config{Meshd: meshd, Peers: 3}); err == nil || !strings.Contains(err.Error(), "peer 1 does not run") {
		t.Errorf("up with a dead peer: %v", err)
	}

	// Dead and living peers come back while others come anew.
	var g errgroup.Group
	for _, i := range []int{1, 0} {
		g.Go(func() error {
			p, err := n.Restart(ctx, i)
			if err == nil && !p.Answers {
				err = fmt.Errorf("after restart: %+v", p)
			}
			return err
		})
	}
	g.Go(func() error { _, err := n.Add(ctx, 1); return err })
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	after, err := n.Status(ctx)
	if err != nil || len(after.Peers) != 4 {
		t.Fatalf("%+v, %v", after, err)
	}
	for i, p := range s.Peers {
		q := after.Peers[i]
		if !q.Running || q.Peer != p.Peer || !slices.Equal(q.Addrs, p.Addrs) || q.Dashboard != p.Dashboard || (q.PID == p.PID) != (i == 2) {
			t.Errorf("peer %d was %+v, and is %+v", i, p, q)
		}
	}

	all, err := n.records()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Down(ctx); err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if left := r.session(); len(left) > 0 {
			t.Errorf("after down: processes %v of peer %d", left, r.Index)
		}
	}
	if _, err := os.Stat(n.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after down: %v", err)
	}
	if err := n.Down(ctx); err != nil {
		t.Errorf("down a second time: %v", err)
	}
}

func TestWhatIsNotThere(t *testing.T) {
	n, ctx := open(t), t.Context()
	_, addErr := n.Add(ctx, 1)
	_, statusErr := n.Status(ctx)
	_, restartErr := n.Restart(ctx, 0)
	for name, err := range map[string]error{"add": addErr, "status": statusErr, "restart": restartErr, "kill": n.Kill(ctx, 0)} {
		if !errors.Is(err, ErrNotUp) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := n.Up(ctx, Config{Meshd: meshd, Peers: 1}); err != nil {
		t.Fatal(err)
	}
	if err := n.Kill(ctx, 7); err == nil || !strings.Contains(err.Error(), "has no peer 7") {
		t.Errorf("kill of peer 7: %v", err)
	}
}

// An up that fails says why, and leaves nothing.
func TestUpThatFails(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "broken")
	if err := os.WriteFile(broken, []byte("#!/bin/sh\necho no luck >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	n := open(t)
	if _, err := n.Up(t.Context(), Config{Meshd: broken, Peers: 2}); err == nil || !strings.Contains(err.Error(), "no luck") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(n.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory: %v", err)
	}
	for name, c := range map[string]Config{
		"no meshd":     {Meshd: broken + "x", Peers: 1},
		"no program":   {Meshd: t.TempDir(), Peers: 1},
		"no peers":     {Meshd: broken},
		"many peers":   {Meshd: broken, Peers: MaxPeers + 1},
		"slots":        {Meshd: broken, Peers: 1, Slots: -1},
		"a used place": {Meshd: broken, Peers: 1},
	} {
		dir := t.TempDir()
		mine := filepath.Join(dir, "mine")
		if err := os.WriteFile(mine, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		n, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Up(t.Context(), c); err == nil {
			t.Errorf("%s: no error", name)
		}
		if err := n.Down(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(mine); err != nil {
			t.Errorf("%s: a file that is none of the testnet's: %v", name, err)
		}
	}
}

// An up that is broken off leaves nothing either.
func TestUpThatIsBrokenOff(t *testing.T) {
	hangs := filepath.Join(t.TempDir(), "hangs")
	if err := os.WriteFile(hangs, []byte("#!/bin/sh\necho started >&2\nexec sleep 600\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	n := open(t)
	ctx, interrupt := context.WithCancel(t.Context())
	var r record
	go func() {
		for r.PID == 0 {
			if r, _ = n.record(0); pause(t.Context()) != nil {
				return
			}
		}
		interrupt()
	}()
	if _, err := n.Up(ctx, Config{Meshd: hangs, Peers: 2}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	<-ctx.Done()
	if left := r.session(); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
	if _, err := os.Stat(n.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory: %v", err)
	}
}

func TestStartTimeTellsProcessesApart(t *testing.T) {
	sleep := exec.Command("sleep", "60")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	started, ok := startTime(sleep.Process.Pid)
	r := record{PID: sleep.Process.Pid, Started: started}
	if !ok || !r.alive() {
		t.Errorf("%+v does not live", r)
	}
	other := record{PID: r.PID, Started: started + "0"}
	if other.alive() || len(other.session()) > 0 {
		t.Errorf("%+v lives", other)
	}
	if err := sleep.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for r.alive() { // it is a zombie from here on
		if err := pause(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	sleep.Wait()
	if r.alive() {
		t.Error("it lives on")
	}
}
