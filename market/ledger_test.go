package market

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/protocol"
	"pgregory.net/rapid"
)

// offer adds records until a whole round changes nothing: as exchange does, which offers
// again what came before what it names.
func offer(t *rapid.T, l *ledger, all []*protocol.Record) {
	for round := 0; ; round++ {
		if round > len(all)+2 {
			t.Fatal("offering the same records never comes to an end")
		}
		changed := false
		for _, r := range all {
			c, err := l.add(r)
			if err != nil && !errors.Is(err, errUnknown) {
				t.Fatalf("%T: %v", r.Body, err)
			}
			if c && err != nil {
				t.Fatalf("%T: refused and changed: %v", r.Body, err)
			}
			changed = changed || c
		}
		checkSpans(t, l)
		if !changed {
			return
		}
	}
}

// checkSpans holds the stages against their invariants.
func checkSpans(t *rapid.T, l *ledger) {
	for i, s := range l.stages {
		if s == nil {
			continue
		}
		if (len(s.spans) == 0) != (s.n == 0) || s.n > 0 && s.spans[0].lo != 0 {
			t.Fatalf("stage %d: does not begin at 0: %v", i, s.spans)
		}
		for k := 1; k < len(s.spans); k++ {
			a, b := &s.spans[k-1], &s.spans[k]
			if a.lo >= b.lo || uint64(b.lo) >= s.n {
				t.Fatalf("stage %d: spans at %d and %d of %d", i, a.lo, b.lo, s.n)
			}
			if a.String() == b.String() {
				t.Fatalf("stage %d: spans at %d and %d are equal: %s", i, a.lo, b.lo, a)
			}
		}
		again := stage{n: s.n, submitter: s.submitter, tally: tally{held: map[protocol.PeerID]uint64{}}}
		s.each(s.all(), func(r protocol.Range, c *cell) bool {
			again.counts(c, r.Len())
			return true
		})
		if !reflect.DeepEqual(again.tally, s.tally) {
			t.Fatalf("stage %d: the tally is %+v and its spans make %+v", i, s.tally, again.tally)
		}
	}
}

// pointers are the records of a ledger as another gets them.
func pointers(list []protocol.Record) []*protocol.Record {
	var out []*protocol.Record
	for i := range list {
		out = append(out, &list[i])
	}
	return out
}

func sameLedger(t *rapid.T, what string, a, b *ledger) {
	sa, ra := a.state()
	sb, rb := b.state()
	if a.digest() != b.digest() || sa != sb || ra != rb {
		t.Fatalf("%s: digests %v and %v, states %d %q and %d %q", what, a.digest(), b.digest(), sa, ra, sb, rb)
	}
}

// Whatever the order, the duplicates and the grouping, the same records make the same
// ledger, and it is the one that the design's words say.
func TestJoinIsWhatTheDesignSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawLedger(t)
		want := newOracle(d.job, d.all)
		first := newLedger(d.job)
		offer(t, first, d.all)
		if diff := want.differs(first); diff != "" {
			t.Fatal(diff)
		}
		for range 3 {
			l := newLedger(d.job)
			list := rapid.Permutation(slices.Concat(d.all, d.all[:len(d.all)/2])).Draw(t, "another order")
			offer(t, l, list)
			sameLedger(t, "another order", first, l)
			if diff := want.differs(l); diff != "" {
				t.Fatal(diff)
			}
		}
	})
}

// Three ledgers with some of the records each are joined in two groupings.
//
// What was computed from a losing seal goes as a whole, and the same root may come back
// with another seal that beats the winner: then a grouping may have let go what another
// still has, and is equal once the three have been offered again. Where the seals of a
// stage agree the groupings are equal at once.
func TestJoinOfLedgers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawLedger(t)
		var parts [3][]*protocol.Record
		for _, r := range d.all {
			in := rapid.IntRange(1, 7).Draw(t, "in")
			for i := range parts {
				if in>>i&1 == 1 {
					parts[i] = append(parts[i], r)
				}
			}
		}
		of := func(list []*protocol.Record) *ledger {
			l := newLedger(d.job)
			offer(t, l, list)
			return l
		}
		join := func(a, b *ledger) *ledger {
			return of(slices.Concat(pointers(a.records()), pointers(b.records())))
		}
		a, b, c := of(parts[0]), of(parts[1]), of(parts[2])
		sameLedger(t, "commutative", join(a, b), join(b, a))
		sameLedger(t, "idempotent", join(a, a), a)
		left, right := join(join(a, b), c), join(a, join(b, c))
		if !d.rivals() {
			sameLedger(t, "associative", left, right)
		}
		three := slices.Concat(pointers(a.records()), pointers(b.records()), pointers(c.records()))
		offer(t, left, three)
		offer(t, right, three)
		sameLedger(t, "offered again", left, right)
		for _, l := range []*ledger{a, b, c} {
			sameLedger(t, "absorbs", join(left, l), left)
		}
		offer(t, left, d.all)
		if diff := newOracle(d.job, d.all).differs(left); diff != "" {
			t.Fatal("after all was offered again: ", diff)
		}
	})
}

// rivals tells whether seals of one stage's top have different roots.
func (d *drawn) rivals() bool {
	roots := map[protocol.StageRef]*protocol.Seal{}
	for _, r := range d.all {
		b, ok := r.Body.(*protocol.Seal)
		if !ok || int(b.Level) != job.TopLevel(d.job.Manifest.Stages[b.Stage].Tasks) {
			continue
		}
		if old := roots[b.StageRef]; old != nil && old.Root != b.Root {
			return true
		}
		roots[b.StageRef] = b
	}
	return false
}

// What a ledger holds makes it anew, in one pass, and adds nothing to itself.
func TestRecordsMakeTheLedger(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawLedger(t)
		l := newLedger(d.job)
		offer(t, l, d.all)
		list := pointers(l.records())
		again := newLedger(d.job)
		for _, r := range list {
			if _, err := again.add(r); err != nil {
				t.Fatalf("%T comes before what it names: %v", r.Body, err)
			}
		}
		sameLedger(t, "made anew", l, again)
		version, digest := l.version, l.digest()
		for _, r := range append(list, d.all...) {
			if changed, _ := l.add(r); changed {
				t.Fatalf("%T changed a ledger that it is in", r.Body)
			}
		}
		if l.version != version || l.hash() != digest {
			t.Fatal("records that add nothing changed the version or the digest")
		}
		seen := map[protocol.Hash]bool{}
		for _, r := range list {
			if seen[r.Hash] {
				t.Fatalf("%T is listed twice", r.Body)
			}
			seen[r.Hash] = true
		}
	})
}

// In a stage whose key stays, a task's life never falls, done stays done within a life,
// and before it the epoch never falls. changed and version and digest agree.
func TestVisibleLifeAndEpochOnlyGrow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawLedger(t)
		l := newLedger(d.job)
		type seen struct {
			life  protocol.Life
			done  bool
			epoch protocol.Epoch
		}
		last := map[string]seen{}
		stages := map[*stage]bool{}
		for _, r := range slices.Concat(d.all, d.all) {
			version, digest := l.version, l.hash()
			changed, _ := l.add(r)
			if changed != (l.version > version) || changed != (l.hash() != digest) || l.digest() != l.hash() {
				t.Fatalf("%T: changed %v, version %d to %d, digest differs %v", r.Body, changed, version, l.version, l.hash() != digest)
			}
			for _, s := range l.stages {
				if s == nil || s.n > 30 {
					continue // the large stages differ only in their blocks
				}
				if !stages[s] { // opened, perhaps anew under a key that it had once
					stages[s] = true
					for i := range s.n {
						delete(last, fmt.Sprint(s.ref.Stage, s.ref.Key, i))
					}
				}
				for i := range s.n {
					c := s.at(protocol.TaskIndex(i))
					k := fmt.Sprint(s.ref.Stage, s.ref.Key, i)
					was, now := last[k], seen{c.life, c.done != nil, c.epoch()}
					if now.life < was.life || now.life == was.life && (was.done && !now.done || !now.done && now.epoch < was.epoch) {
						t.Fatalf("task %d: %v after %v, by %T", i, now, was, r.Body)
					}
					last[k] = now
				}
			}
		}
	})
}
