package node

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/node/api"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

var update = flag.Bool("update", false, "write the golden files anew; only for a new version of the format")

const journalFile = "testdata/journals.txt"

// goldenEntries are of every kind, and of one that this version does not know.
func goldenEntries() []market.Entry {
	return []market.Entry{
		{Kind: market.EntryJob, Job: "a job", Data: []byte("a manifest")},
		{Kind: market.EntryRecord, Job: "a job", Data: []byte("a record")},
		{Kind: market.EntryFinal, Job: "another", Data: []byte("a final")},
		{Kind: 200, Data: []byte("of a later version")},
	}
}

// A journal of each version that was ever written is read the same for ever, and the newest is written the same.
func TestGoldenJournals(t *testing.T) {
	entries := goldenEntries()
	newest := journalStart()
	for i := range 2 {
		var err error
		if newest, err = appendFrame(newest, uint32(i+1), entries[2*i:2*i+2]); err != nil {
			t.Fatal(err)
		}
	}
	if *update {
		text := fmt.Sprintf("1 %x\n2 %x\n", v1(entries...), newest)
		if err := os.WriteFile(journalFile, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(journalFile)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) != journalVersion {
		t.Fatalf("%d journals, want one of each of %d versions", len(lines), journalVersion)
	}
	for i, line := range lines {
		version, digits, _ := strings.Cut(line, " ")
		data, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatal(err)
		}
		found, err := readJournal(data)
		if err != nil || len(found.damage) > 0 || found.end != int64(len(data)) || fmt.Sprint(found.version) != version || !sameEntries(found.entries, entries) {
			t.Errorf("version %s: %+v, %v", version, found, err)
		}
		if i == len(lines)-1 && !bytes.Equal(data, newest) {
			t.Errorf("version %s is written otherwise now: %x", version, newest)
		}
	}
}

// Damage while a peer was off: a chunk is dropped when it is first read and comes again from another peer; a journal is refused with
// what is lost, repaired when that is asked for, and the doctor tells.
func TestDamageAtRest(t *testing.T) {
	homes := make([]Config, 2)
	nodes := startMesh(t, 2, func(i int, cfg *Config) { cfg.Slots = 0; homes[i] = *cfg })
	kept := nodes[1]
	program := nodes[0].program("noop")
	root, err := cid.Decode(program.Root)
	if err != nil {
		t.Fatal(err)
	}
	fetch := func(n *testNode) error {
		return n.content.fetch(t.Context(), []cid.Cid{root}, source{from: []protocol.PeerID{nodes[0].Peer()}})
	}
	if err := fetch(kept); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		kept.submit(api.SubmitRequest{Map: program, Array: ptr(uint64(1)), Replicas: ptr(0)})
	}
	spoil := func(path string, at int64) {
		t.Helper()
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		data[at] ^= 1
		if err := errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	path, ok := kept.store.Path(root)
	if !ok {
		t.Fatal("the program is not one chunk")
	}
	if err := kept.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	spoil(path, 0)
	spoil(kept.journal.path, int64(journalHeader)+frameHeader)

	cfg := homes[1]
	if n, err := New(t.Context(), cfg); !errors.Is(err, ErrJournalDamaged) {
		t.Fatalf("started on a damaged journal: %v, %v", n, err)
	}
	cfg.Repair = true
	again := startNode(t, cfg)
	checks, err := again.Doctor(t.Context())
	if err != nil || !slices.ContainsFunc(checks, func(c api.Check) bool { return c.Name == "journal" && strings.Contains(c.Detail, "1 commit") }) {
		t.Errorf("doctor: %+v, %v", checks, err)
	}
	eventually(t, "the chunk comes again", func() bool { return fetch(again) == nil })
	if err := again.store.Verify(t.Context(), root); err != nil {
		t.Error(err)
	}
}
