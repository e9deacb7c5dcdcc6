package market

import (
	"slices"
	"strings"

	"github.com/compute-mesh/mesh/protocol"
)

// maxFailers bounds the signers whose failures of one task are kept: far more than the
// attempts a manifest may allow. The first in the order of their IDs stay, whatever
// order the records come in.
const maxFailers = 64

// failures is the failed attempts at a task: of the highest generation, for each
// signer the record of its highest attempt. It is immutable; nil is no failure.
type failures struct {
	generation protocol.Generation
	records    []*protocol.Record // by signer
}

func failedOf(r *protocol.Record) *protocol.Failed { return r.Body.(*protocol.Failed) }

// join adds a Failed record. It returns f itself where that adds nothing.
func (f *failures) join(rec *protocol.Record) *failures {
	b := failedOf(rec)
	switch {
	case f == nil || b.Generation > f.generation:
		return &failures{b.Generation, []*protocol.Record{rec}}
	case b.Generation < f.generation:
		return f
	}
	i, found := slices.BinarySearchFunc(f.records, rec, func(a, b *protocol.Record) int {
		return strings.Compare(string(a.Signer), string(b.Signer))
	})
	if !found {
		if i == maxFailers {
			return f
		}
		records := slices.Insert(slices.Clone(f.records), i, rec)
		return &failures{f.generation, records[:min(len(records), maxFailers)]}
	}
	old := failedOf(f.records[i])
	if b.Attempt < old.Attempt || b.Attempt == old.Attempt && !before(rec, f.records[i]) {
		return f
	}
	records := slices.Clone(f.records)
	records[i] = rec
	return &failures{f.generation, records}
}

// all is the records, also of nil.
func (f *failures) all() []*protocol.Record {
	if f == nil {
		return nil
	}
	return f.records
}

// total is the number of attempts that failed in generation g.
func (f *failures) total(g protocol.Generation) int {
	if f == nil || f.generation != g {
		return 0
	}
	n := 0
	for _, r := range f.records {
		n += int(failedOf(r).Attempt)
	}
	return n
}

// by is the signer's highest attempt in generation g.
func (f *failures) by(p protocol.PeerID, g protocol.Generation) protocol.Attempt {
	if f == nil || f.generation != g {
		return 0
	}
	for _, r := range f.records {
		if r.Signer == p {
			return failedOf(r).Attempt
		}
	}
	return 0
}

// hung tells whether an attempt of generation g that went on from a checkpoint passed its
// time limit without making another.
func (f *failures) hung(g protocol.Generation) bool {
	return f != nil && f.generation == g && slices.ContainsFunc(f.records, func(r *protocol.Record) bool {
		return failedOf(r).Reason == protocol.ReasonHang
	})
}
