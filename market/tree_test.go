package market

import (
	"errors"
	"fmt"
	"testing"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
	"pgregory.net/rapid"
)

// talk is what two ledgers said to one another until nothing was left to say.
type talk struct{ messages, hashes, records int }

// compareAll lets a and b compare as keepers do, a speaking first.
func compareAll(t failer, a, b *ledger) (said talk) {
	parts := []protocol.Part{a.partJob()}
	for from, to := a, b; len(parts) > 0; from, to = to, from {
		if said.messages++; said.messages > 10 {
			t.Fatalf("after 10 messages there are still parts to compare: %v", parts)
		}
		var next []protocol.Part
		for i := range parts {
			said.hashes += len(parts[i].Hashes)
			news, below := to.compare(&parts[i])
			said.records += len(news)
			for _, rec := range news {
				if _, err := from.add(rec); err != nil && !errors.Is(err, errUnknown) {
					t.Fatalf("%T: %v", rec.Body, err)
				}
			}
			next = append(next, below...)
		}
		parts = next
	}
	return said
}

// Two keepers with some of a job's records each come to equal ledgers by comparing again
// and again, as exchange does.
func TestCompareMakesLedgersEqual(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawLedger(t)
		var parts [2][]*protocol.Record
		for _, r := range d.all {
			in := rapid.IntRange(1, 3).Draw(t, "in")
			for i := range parts {
				if in>>i&1 == 1 {
					parts[i] = append(parts[i], r)
				}
			}
		}
		a, b := newLedger(d.job), newLedger(d.job)
		offer(t, a, parts[0])
		offer(t, b, parts[1])
		for round := 0; a.digest() != b.digest(); round++ {
			if round > len(d.all)+2 {
				t.Fatalf("not equal after %d rounds", round)
			}
			if round%2 == 0 {
				compareAll(t, a, b)
			} else {
				compareAll(t, b, a)
			}
		}
		sameLedger(t, "compared", a, b)
	})
}

// The hashes that a ledger remembers are those that it would compute.
func TestTreeRemembersWhatIsTrue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawLedger(t)
		l := newLedger(d.job)
		for _, r := range d.all {
			_, _ = l.add(r)
			known := l.hash()
			for _, s := range l.stages {
				if s != nil {
					s.nodes = nil
				}
			}
			if l.hash() != known {
				t.Fatalf("after %T the tree remembers another hash", r.Body)
			}
		}
	})
}

// In a job of a million tasks one record that a keeper lacks is found by a few messages
// and some ten thousand bytes, however much else there is.
func TestCompareFindsOneOfMany(t *testing.T) {
	j := testJob(t, 1_000_000, nil)
	keep := signed(t, testPeer(0), &protocol.Keep{Job: j.ID, Groups: protocol.AllGroups(j.Manifest.Groups)})
	a, b := newLedger(j), newLedger(j)
	add := func(rec *protocol.Record, to ...*ledger) {
		t.Helper()
		for _, l := range to {
			if _, err := l.add(rec); err != nil {
				t.Fatal(err)
			}
		}
	}
	add(keep, a, b)
	for i := range protocol.TaskIndex(2000) {
		d := &protocol.Done{StageRef: firstRef(j), Range: tasks(i*499, i*499+1), Page: testCID(cid.Raw, fmt.Sprint(i))}
		d.Receipts = []protocol.SignedReceipt{receiptOf(t, 0, d, keep.Hash)}
		rec := signed(t, testPeer(1), d)
		if add(rec, a); i != 1000 {
			add(rec, b)
		}
	}
	said := compareAll(t, b, a)
	if a.digest() != b.digest() {
		t.Fatal("not equal")
	}
	if said.records != 1 || said.messages > 4 || said.hashes > 2*protocol.BlockSize {
		t.Errorf("it took %d messages with %d hashes and %d records", said.messages, said.hashes, said.records)
	}
	if equal := compareAll(t, a, b); equal.messages != 1 {
		t.Errorf("equal ledgers need %d messages", equal.messages)
	}
}
