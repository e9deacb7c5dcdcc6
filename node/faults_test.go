package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/compute-mesh/mesh/internal/vfs"
	"github.com/compute-mesh/mesh/internal/vfs/vfstest"
	"github.com/compute-mesh/mesh/node/api"
)

// contract is the conformance tests' program: each subcommand does one thing.
func (n *testNode) contract(args ...string) api.Program {
	n.t.Helper()
	wasm, err := os.ReadFile(filepath.Join("..", "sandbox", "testdata", "contract", "contract.wasm"))
	if err != nil {
		n.t.Fatal(err)
	}
	got, err := n.Import(n.t.Context(), api.ImportOptions{Form: api.FormProgram}, &items{names: []string{"contract.wasm"}, texts: []string{string(wasm)}})
	if err != nil {
		n.t.Fatal(err)
	}
	return api.Program{Name: "contract.wasm", Root: got.Root, Args: args}
}

func TestProgramsThatFail(t *testing.T) {
	n := startNode(t, testConfig(t, t.TempDir()))
	for _, test := range []struct {
		args    []string
		change  func(*api.SubmitRequest)
		reason  string // empty: no failure
		logged  string // in the log
		timeout time.Duration
	}{
		{args: []string{"exit", "7"}, reason: "exit"},
		{args: []string{"exit", "7"}, change: func(r *api.SubmitRequest) { r.OkExit = []int32{0, 7} }},
		{args: []string{"trap"}, reason: "trap", logged: "about to trap"},
		{args: []string{"log-loop"}, reason: "timeout", logged: "looping", timeout: 300 * time.Millisecond},
		{args: []string{"outputs", "300"}, reason: "output"},
		{args: []string{"outputs", "200"}},
		{args: []string{"binary"}},
		{args: []string{"endless-log"}},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			r := api.SubmitRequest{Map: n.contract(test.args...), Array: ptr(uint64(1)), Replicas: ptr(0), Retries: ptr(0), Timeout: api.Duration(test.timeout)}
			if test.change != nil {
				test.change(&r)
			}
			job := n.submit(r)
			s := n.await(job)
			if test.reason == "" {
				if s.State != api.StateDone {
					t.Fatalf("%+v", s)
				}
				return
			}
			if s.State != api.StateFailed || len(s.Failures) != 1 || s.Failures[0].Reason != test.reason {
				t.Fatalf("%+v", s)
			}
			if _, err := n.Results(t.Context(), job, api.ResultsOptions{}, &collected{}); api.KindOf(err) != api.KindFailed {
				t.Errorf("results of a failed job: %v", err)
			}
			if _, sum := n.results(job, api.ResultsOptions{Partial: true}); sum.Missing != 1 {
				t.Errorf("partial results: %+v", sum)
			}
			log := ""
			if err := n.Logs(t.Context(), job, api.LogsOptions{}, func(e api.LogEntry) error { log += e.Text; return nil }); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(log, test.logged) {
				t.Errorf("log %q lacks %q", log, test.logged)
			}
		})
	}
}

// Outputs of every size, inside pages, of one chunk and of many, come out joined as they went in, from any peer.
func TestLargeOutputsAreJoined(t *testing.T) {
	nodes := startMesh(t, 2, nil)
	var in bytes.Buffer
	for i := range 200_000 {
		fmt.Fprintf(&in, "line %d of a text that is cut and joined again\n", i)
	}
	for _, split := range []string{"lines:3000", "lines:300000", "lines:4000000"} {
		part := in.Bytes()
		if split == "lines:3000" {
			part = part[:300_000]
		}
		got, err := nodes[0].Import(t.Context(), api.ImportOptions{Form: api.FormInput, Split: split}, &items{names: []string{"text"}, texts: []string{string(part)}})
		if err != nil {
			t.Fatal(err)
		}
		program := nodes[0].contract("cat")
		job := nodes[0].submit(api.SubmitRequest{Map: program, Reduce: &program, Index: got.Index, Replicas: ptr(1)})
		if s := nodes[0].await(job); s.State != api.StateDone {
			t.Fatalf("%s: %+v", split, s)
		}
		c, _ := nodes[1].results(job, api.ResultsOptions{Wait: true})
		if len(c.texts) != 1 || !bytes.Equal(bytes.TrimRight(c.texts[0], "\n"), bytes.TrimRight(part, "\n")) {
			t.Errorf("%s: the joined output is not the input", split)
		}
	}
}

// A running task's log is seen from another peer while it runs; a cancelled job's tasks stop.
func TestFollowAndCancel(t *testing.T) {
	nodes := startMesh(t, 2, func(i int, cfg *Config) {
		if i == 0 {
			cfg.Slots = 0
		}
	})
	job := nodes[0].submit(api.SubmitRequest{Map: nodes[0].contract("log-loop"), Array: ptr(uint64(1)), Replicas: ptr(1)})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	seen := errors.New("seen")
	err := nodes[0].Logs(ctx, job, api.LogsOptions{Follow: true}, func(e api.LogEntry) error {
		if e.Text == "looping\n" && e.Peer == nodes[1].Peer().String() {
			return seen
		}
		return nil
	})
	if !errors.Is(err, seen) {
		t.Fatalf("follow: %v", err)
	}
	if _, err := nodes[1].Control(t.Context(), job, api.VerbCancel); api.KindOf(err) != api.KindForbidden {
		t.Fatalf("cancel by another owner: %v", err)
	}
	if s, err := nodes[0].Control(t.Context(), job, api.VerbCancel); err != nil || s.State != api.StateCancelled {
		t.Fatalf("cancel: %+v, %v", s, err)
	}
	eventually(t, "the task stops", func() bool { running, _ := nodes[1].runner.levels(); return running == 0 })
	if s := nodes[1].await(job); s.State != api.StateCancelled {
		t.Errorf("at the worker: %+v", s)
	}
}

// With the submitter's peer off, any other gives the results; one that joins late takes part.
func TestSubmitterOffAndLateJoiner(t *testing.T) {
	nodes := startMesh(t, 3, func(i int, cfg *Config) {
		if i == 0 {
			cfg.Slots = 0
		}
	})
	program := nodes[0].program("burn")
	program.Args = []string{"15"}
	job := nodes[0].submit(api.SubmitRequest{Map: program, Array: ptr(uint64(40)), Replicas: ptr(2)})
	if a, err := nodes[0].Accepted(t.Context(), job); err != nil || !a.Accepted {
		t.Fatalf("%+v, %v", a, err)
	}
	late := testConfig(t, filepath.Join(t.TempDir(), "late"))
	late.Bootstrap = []string{nodes[1].Addrs()[0].String()}
	n := startNode(t, late)
	eventually(t, "the late peer runs a task", func() bool { return n.runner.count.done.Load() > 0 })
	if err := nodes[0].Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := n.await(job); s.State != api.StateDone || s.Done != 40 {
		t.Fatalf("%+v", s)
	}
	if c, _ := n.results(job, api.ResultsOptions{Wait: true}); len(c.outputs) != 40 || slices.ContainsFunc(c.texts, func(b []byte) bool { return len(b) == 0 }) {
		t.Errorf("%d results", len(c.outputs))
	}
}

func TestClearErrors(t *testing.T) {
	n := startNode(t, testConfig(t, t.TempDir()))
	unknown := "bafyreib4zadvc7dzcyin2oyl6m7ni7wt5u47pfb764u4yv3bcrggycc4ym"
	_, err := n.Status(t.Context(), unknown)
	check := func(what string, err error, want api.Kind) {
		t.Helper()
		if api.KindOf(err) != want {
			t.Errorf("%s: %v (%s), want %s", what, err, api.KindOf(err), want)
		}
	}
	check("unknown job", err, api.KindNotFound)
	_, err = n.Status(t.Context(), "no-such-thing")
	check("no job ID", err, api.KindInvalid)
	for text, want := range map[string]string{
		"nonsense": `"nonsense" is no CID`,
		"bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku": "chunkstore: no peer that answers has bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
	} {
		var full *api.Error
		if err := n.Cat(t.Context(), text, &bytes.Buffer{}); !errors.As(err, &full) || err.Error() != want || full.Advice == "" {
			t.Errorf("cat of %s: %#v", text, err)
		}
	}
	check("unknown CID", n.Cat(t.Context(), "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku", &bytes.Buffer{}), api.KindUnavailable)
	_, err = n.Import(t.Context(), api.ImportOptions{Form: api.FormProgram}, &items{names: []string{"p"}, texts: []string{"#!/bin/sh"}})
	check("no program", err, api.KindInvalid)
	_, err = n.Import(t.Context(), api.ImportOptions{Form: api.FormInput, Split: "lines:many"}, &items{})
	check("bad split", err, api.KindInvalid)
	_, err = n.Submit(t.Context(), api.SubmitRequest{Map: n.program("noop")})
	check("neither array nor input", err, api.KindInvalid)
	_, err = n.Submit(t.Context(), api.SubmitRequest{Map: n.program("noop"), Array: ptr(uint64(1)), Split: "file"})
	check("a split of no input", err, api.KindInvalid)
	_, err = n.Connect(t.Context(), "/ip4/127.0.0.1/tcp/1")
	check("an address without peer", err, api.KindInvalid)
	_, err = n.Control(t.Context(), n.done(), api.VerbCancel)
	check("cancel of a job that is done", err, api.KindConflict)
}

// done is a job that is done.
func (n *testNode) done() string {
	job := n.submit(api.SubmitRequest{Map: n.program("noop"), Array: ptr(uint64(1)), Replicas: ptr(0)})
	n.await(job)
	return job
}

// With gossip off, a peer hears of jobs by asking those it is connected to.
func TestJobsAreFoundWithoutGossip(t *testing.T) {
	nodes := startMesh(t, 2, func(i int, cfg *Config) {
		cfg.Gossip, cfg.Slots = false, i
	})
	job := nodes[0].submit(api.SubmitRequest{Map: nodes[0].program("noop"), Array: ptr(uint64(10)), Replicas: ptr(0)})
	if s := nodes[0].await(job); s.State != api.StateDone {
		t.Fatalf("%+v", s)
	}
	if ran := nodes[1].runner.count.done.Load(); ran != 10 {
		t.Errorf("the other peer ran %d", ran)
	}
}

func TestFullStore(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	cfg.Quota = smallestQuota
	n := startNode(t, cfg)
	big := make([]byte, smallestQuota)
	for i := 0; i < len(big); i += 4096 { // no two chunks are equal
		copy(big[i:], fmt.Sprintf("%08d", i))
	}
	_, err := n.Import(t.Context(), api.ImportOptions{Form: api.FormInput, Split: "none"}, &items{names: []string{"big"}, texts: []string{string(big)}})
	if api.KindOf(err) != api.KindQuota {
		t.Fatalf("an import larger than the store: %v", err)
	}
	if s := n.await(n.done()); s.State != api.StateDone { // nothing of it stays in the way
		t.Fatalf("%+v", s)
	}
}

func TestDrainEndsThePeer(t *testing.T) {
	n := startNode(t, testConfig(t, t.TempDir()))
	job := n.submit(api.SubmitRequest{Map: n.contract("loop"), Array: ptr(uint64(1)), Replicas: ptr(0)})
	eventually(t, "the task runs", func() bool { running, _ := n.runner.levels(); return running == 1 })
	if _, err := n.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if running, _ := n.runner.levels(); running != 0 {
		t.Error("a task runs after the drain")
	}
	if s, err := n.Status(t.Context(), job); err == nil && s.State.Ended() {
		t.Errorf("the drained job: %+v", s)
	}
	if err := n.Wait(); err != nil {
		t.Fatal(err)
	}
}

// A disk that fails ends the peer, with the reason.
func TestDiskFailureStopsThePeer(t *testing.T) {
	faults := &vfstest.Faults{FS: vfs.OS{}}
	cfg := testConfig(t, t.TempDir())
	cfg.disk = faults
	n := startNode(t, cfg)
	program := n.program("noop")
	faults.Hook(func(_ int, op vfstest.Op, path string) error {
		if op == vfstest.OpSync && strings.HasPrefix(path, n.journal.path) {
			return syscall.EIO
		}
		return nil
	})
	if _, err := n.Submit(t.Context(), api.SubmitRequest{Map: program, Array: ptr(uint64(1)), Replicas: ptr(0)}); !errors.Is(err, syscall.EIO) {
		t.Errorf("submit: %v", err)
	}
	faults.Hook(nil) // a second flush would succeed, and have written nothing
	if err := n.Wait(); !errors.Is(err, syscall.EIO) {
		t.Errorf("ended with %v", err)
	}
}

// A full disk makes the peer wait, whatever it is about to write; with room it goes on, and what it was asked is done.
func TestFullDiskIsWaitedFor(t *testing.T) {
	faults := &vfstest.Faults{FS: vfs.OS{}}
	cfg := testConfig(t, t.TempDir())
	cfg.disk = faults
	n := startNode(t, cfg)
	program := n.program("noop")
	faults.FailWrites(syscall.ENOSPC)
	refused := func(what string) {
		t.Helper()
		_, err := n.Submit(t.Context(), api.SubmitRequest{Map: program, Array: ptr(uint64(1)), Replicas: ptr(0)})
		if api.KindOf(err) != api.KindQuota || !strings.Contains(err.Error(), "no space left") {
			t.Errorf("a submit %s: %v", what, err)
		}
	}
	refused("to a full disk")
	faults.Hook(func(_ int, op vfstest.Op, path string) error { // room for chunks is found in the store, for the journal is none
		if op == vfstest.OpWrite && strings.HasPrefix(path, n.journal.path) {
			return syscall.ENOSPC
		}
		return nil
	})
	job := make(chan string, 1)
	go func() {
		s, err := n.Submit(context.Background(), api.SubmitRequest{Map: program, Array: ptr(uint64(3)), Replicas: ptr(0)})
		if err != nil {
			t.Errorf("a submit that met a full disk: %v", err)
		}
		job <- s.Job
	}()
	eventually(t, "the peer waits for room", func() bool { return n.commit.waits() != nil })
	refused("to a peer that waits for room")
	checks, err := n.Doctor(t.Context())
	if err != nil || !slices.ContainsFunc(checks, func(c api.Check) bool { return c.Name == "disk" && c.Level == api.LevelError }) {
		t.Errorf("doctor: %+v, %v", checks, err)
	}
	faults.Hook(nil)
	if s := n.await(<-job); s.State != api.StateDone {
		t.Fatalf("%+v", s)
	}
	if n.commit.waits() != nil {
		t.Error("it still waits")
	}
}
