package chunkstore

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs/go-cid"
)

// The pin sets are in a file of bbolt's, which writes it by itself, pages first, then, after a flush, one of two meta pages.
// So the states that a power cut can leave are made here from the file as it is before and after a transaction: some of the
// pages that the transaction changed, in part, and the meta pages of before; or all of them, and of the new meta page some bytes.

const (
	pageSize   = 4096
	metaPages  = 2
	tornStates = 60 // a transaction
)

// between is a state of the file that a crash can leave between two.
func between(before, after []byte, rng *rand.Rand) []byte {
	size := len(before)
	if rng.IntN(2) == 0 {
		size = max(len(before), len(after))
	}
	state := make([]byte, size)
	copy(state, before)
	whole := rng.IntN(3) == 0
	for at := metaPages * pageSize; at < min(len(after), size); at += 512 {
		if whole || rng.IntN(2) == 0 {
			copy(state[at:at+512], after[at:at+512])
		}
	}
	if whole && size >= len(after) { // the first flush is done, the second is not
		for page := range metaPages {
			at := page * pageSize
			n := rng.IntN(2) * 512
			copy(state[at:at+n], after[at:at+n])
		}
	}
	return state
}

func TestPinsSurvivePowerLoss(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 0))
	s := testStore(t)
	path := filepath.Join(s.cfg.Dir, "pins.db")
	state := func() []byte { return must(os.ReadFile(path))(t) }
	want := map[string]int{}
	before := state()
	for i := range 8 {
		set := fmt.Sprint("set ", i)
		old := len(want)
		var roots []cid.Cid
		for k := range 1 + 60*i { // larger ones split pages
			roots = append(roots, must(s.Put(t.Context(), fmt.Appendf(nil, "%d %d", i, k)))(t))
		}
		if err := s.Pin(set, roots...); err != nil {
			t.Fatal(err)
		}
		if i == 5 {
			if err := s.Unpin("set 3"); err != nil { // pages come free and are used again
				t.Fatal(err)
			}
			delete(want, "set 3")
			before = state()
		}
		want[set] = len(roots)
		after := state()
		for n := range tornStates {
			torn := filepath.Join(t.TempDir(), "pins.db")
			if err := os.WriteFile(torn, between(before, after, rng), 0o600); err != nil {
				t.Fatal(err)
			}
			got := pinsOf(t, torn)
			if len(got) != len(want) && len(got) != old {
				t.Fatalf("transaction %d, state %d: %d sets, want %d or %d", i, n, len(got), old, len(want))
			}
			for name, roots := range got {
				if want[name] != roots {
					t.Fatalf("transaction %d, state %d: set %q has %d roots, want %d", i, n, name, roots, want[name])
				}
			}
		}
		before = after
	}
}

// pinsOf opens a copy of the pins and counts the roots of each set.
func pinsOf(t *testing.T, path string) map[string]int {
	t.Helper()
	db, err := openPins(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s := &Store{pins: db}
	got := map[string]int{}
	if err := s.PinSets(func(set string) bool { got[set] = 0; return true }); err != nil {
		t.Fatal(err)
	}
	for set := range got {
		if err := s.Pinned(set, func(cid.Cid) bool { got[set]++; return true }); err != nil {
			t.Fatal(err)
		}
	}
	return got
}
