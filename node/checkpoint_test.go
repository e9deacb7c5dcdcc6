package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"testing"

	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/node/api"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// rounds is a job of one task that asks for a checkpoint after each of its rounds: some seconds of work.
func (n *testNode) rounds(replicas int) string {
	n.t.Helper()
	return n.submit(api.SubmitRequest{Map: n.contract("state", "300", "25000"), Array: ptr(uint64(1)), Replicas: ptr(replicas)})
}

// checkpointOf is the newest checkpoint of a job's task that a peer knows.
func (n *testNode) checkpointOf(job string) (state cid.Cid) {
	id, err := protocol.ParseJobID(job)
	if err != nil {
		n.t.Fatal(err)
	}
	_ = n.driver.ask(context.Background(), func(m machine) {
		for _, rec := range m.Records(id) {
			if b, ok := rec.Body.(*protocol.Checkpoint); ok {
				state = b.State
			}
		}
	})
	return state
}

// lines is what the one task of a job wrote, and where its last run began.
func (n *testNode) lines(job string) (output []byte, began int) {
	n.t.Helper()
	c, _ := n.results(job, api.ResultsOptions{Wait: true, Files: true})
	for _, text := range c.texts {
		output = append(output, text...)
	}
	log := ""
	if err := n.Logs(n.t.Context(), job, api.LogsOptions{}, func(e api.LogEntry) error { log += e.Text; return nil }); err != nil {
		n.t.Fatal(err)
	}
	if _, err := fmt.Sscanf(log, "starts at %d", &began); err != nil {
		n.t.Fatalf("log %q: %v", log, err)
	}
	return output, began
}

// undisturbed is what the job of rounds gives on a peer by itself.
func undisturbed(t *testing.T) []byte {
	t.Helper()
	alone := startNode(t, testConfig(t, t.TempDir()))
	job := alone.rounds(0)
	alone.await(job)
	want, began := alone.lines(job)
	if began != 0 || bytes.Count(want, []byte("\n")) != 301 {
		t.Fatalf("began at %d: %.100q", began, want)
	}
	return want
}

// A task whose peer is cut off goes on at another, from its checkpoint, and gives the same bytes.
func TestTaskGoesOnElsewhere(t *testing.T) {
	want := undisturbed(t)
	nodes := startMesh(t, 4, func(i int, cfg *Config) {
		if i < 2 {
			cfg.Slots = 0
		}
	})
	job := nodes[0].rounds(1)
	eventually(t, "a checkpoint is known to the submitter's peer", func() bool { return nodes[0].checkpointOf(job).Defined() })
	var worker *testNode
	for _, n := range nodes {
		if len(n.runner.now("")) > 0 {
			worker = n
		}
	}
	if worker == nil {
		t.Fatal("nobody runs the task")
	}
	if err := worker.net.Host().Close(); err != nil {
		t.Fatal(err)
	}
	if s := nodes[0].await(job); s.State != api.StateDone {
		t.Fatalf("%+v", s)
	}
	got, began := nodes[1].lines(job)
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes, undisturbed %d: %.200q", len(got), len(want), got)
	}
	if began == 0 {
		t.Error("the task began at its start")
	}
}

// stateWith is a checkpoint of a nondeterministic task with /state/dir and /state/round, as package wasi describes it.
func stateWith(round string) []byte {
	b := binary.LittleEndian.AppendUint16([]byte("mesh state"), 1)
	b = append(b, "\x00\x02\x03dir\x00\x01\x05round"...)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(round)))
	b = append(append(b, round...), 0)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

// A checkpoint that can't be had, that is none, or that makes the program fail costs time alone: the run goes on from the one before
// it, or begins at its start.
func TestUselessCheckpoint(t *testing.T) {
	n := startNode(t, testConfig(t, t.TempDir()))
	job := n.submit(api.SubmitRequest{Map: n.contract("state", "5"), Array: ptr(uint64(1)), Replicas: ptr(0), Nondeterministic: true})
	n.await(job)
	_, signed, err := n.known(t.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan market.Input, 1)
	r := newRunner(1, 1<<30, n.prep, n.pool, n.deaths, func(in market.Input) { ended <- in }, n.log)
	defer r.close()
	whole, torn, misleading, missing := stateWith("3 7"), stateWith("3 7")[:20], stateWith("many"), []byte(nil)
	for _, test := range []struct {
		name    string
		states  [][]byte
		useless uint64
		log     string
	}{
		{"whole", [][]byte{whole, stateWith("2 5")}, 0, "starts at 3\n"},
		{"torn", [][]byte{torn}, 1, "starts at 0\n"},
		{"misleading", [][]byte{misleading}, 1, "starts at 0\n"},
		{"missing", [][]byte{missing}, 1, "starts at 0\n"},
		{"torn after whole", [][]byte{torn, whole}, 1, "starts at 3\n"},
		{"misleading after whole", [][]byte{misleading, whole}, 1, "starts at 3\n"},
		{"missing after whole", [][]byte{missing, whole}, 1, "starts at 3\n"},
		{"torn after misleading", [][]byte{torn, misleading}, 2, "starts at 0\n"},
		{"missing after torn", [][]byte{missing, torn}, 2, "starts at 0\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var roots []cid.Cid
			for _, state := range test.states {
				root, err := cid.V1Builder{Codec: cid.Raw, MhType: multihash.SHA2_256}.Sum([]byte("what nobody has"))
				if state != nil {
					root, err = n.store.Put(t.Context(), state)
				}
				if err != nil {
					t.Fatal(err)
				}
				roots = append(roots, root)
			}
			before := r.checkpoints.useless.Load()
			r.run([]market.Run{{ID: 1, Job: signed, States: roots}})
			e := (<-ended).(market.Ended)
			if log := string(e.Result.Log.Inline); e.Outcome != market.OutcomeDone || log != test.log {
				t.Errorf("log %q: %+v", log, e)
			}
			if got := r.checkpoints.useless.Load() - before; got != test.useless {
				t.Errorf("%d checkpoints of no use", got)
			}
		})
	}
}
