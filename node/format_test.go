package node

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/compute-mesh/mesh/market"
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
