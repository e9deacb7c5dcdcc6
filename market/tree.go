package market

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/protocol"
)

// The digest of the visible state is the root of a tree, so that two keepers find where
// they differ without telling everything: the job; its common part and, for each stage,
// the seals above level 0 (the head) and a tree over the tasks, with BlockSize children a
// node. A node whose tasks all have equal cells is hashed as that cell, whatever its
// size: the tree costs what the spans do. SPEC.md section 7.4 has the bytes.

// putHash appends the hash of rec, or zeros where there is none.
func putHash(b []byte, rec *protocol.Record) []byte {
	var h protocol.Hash
	if rec != nil {
		h = rec.Hash
	}
	return append(b, h[:]...)
}

// encode appends what the digest covers of a cell.
func (c *cell) encode(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(c.life))
	for _, r := range [...]*protocol.Record{c.reopen, c.done, c.held, c.check} {
		b = putHash(b, r)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(len(c.failed.all())))
	for _, r := range c.failed.all() {
		b = putHash(b, r)
	}
	return b
}

// nodeRange is the tasks of a node, which may lie beyond the stage in part.
func nodeRange(level uint8, number uint64) protocol.Range {
	size := uint64(protocol.BlockSize)
	for range level {
		size *= protocol.BlockSize
	}
	return protocol.Range{Lo: protocol.TaskIndex(number * size), Hi: protocol.TaskIndex((number + 1) * size)}
}

// node is the hash of a node of the tree. It must be in the stage.
func (s *stage) node(level uint8, number uint64) protocol.Hash {
	name := sealName{level, number}
	if h, known := s.nodes[name]; known {
		return h
	}
	r := nodeRange(level, number).Intersect(s.all())
	i := s.find(r.Lo)
	var b []byte
	switch {
	case s.hi(i) >= r.Hi:
		b = s.spans[i].encode([]byte{'='})
	case level == 0:
		b = []byte{'-'}
		s.each(r, func(at protocol.Range, c *cell) bool {
			b = c.encode(binary.BigEndian.AppendUint64(b, uint64(at.Lo)))
			return true
		})
	default:
		b = []byte{'/'}
		for _, h := range s.children(level, number) {
			b = append(b, h[:]...)
		}
	}
	h := protocol.Hash(sha256.Sum256(b))
	if s.nodes == nil {
		s.nodes = map[sealName]protocol.Hash{}
	}
	s.nodes[name] = h
	return h
}

// children are the hashes of the nodes below one.
func (s *stage) children(level uint8, number uint64) []protocol.Hash {
	var list []protocol.Hash
	shape := job.SealShape(s.n)
	for n := number * protocol.BlockSize; n < min((number+1)*protocol.BlockSize, shape[level-1]); n++ {
		list = append(list, s.node(level-1, n))
	}
	return list
}

// forgetNodes drops the hashes of what covers r: its cells have changed.
func (s *stage) forgetNodes(r protocol.Range) {
	if r.Len() > protocol.BlockSize*uint64(len(s.nodes)) {
		clear(s.nodes)
		return
	}
	lo, hi := uint64(r.Lo), uint64(r.Hi-1)
	for level := range uint8(protocol.MaxLevel + 1) {
		lo, hi = lo/protocol.BlockSize, hi/protocol.BlockSize
		for n := lo; n <= hi; n++ {
			delete(s.nodes, sealName{level, n})
		}
	}
}

// tree is the hash of all tasks.
func (s *stage) tree() protocol.Hash {
	if s.n == 0 {
		return protocol.Hash{}
	}
	return s.node(uint8(job.TopLevel(s.n)), 0)
}

// head is the hash of the seals that are in no cell.
func (s *stage) head() protocol.Hash {
	b := putHash(nil, s.top)
	for _, name := range s.sealNames() {
		b = binary.BigEndian.AppendUint64(b, uint64(name.level))
		b = binary.BigEndian.AppendUint64(b, name.number)
		b = putHash(b, s.seals[name])
	}
	return sha256.Sum256(b)
}

// common is the hash of what belongs to no stage.
func (l *ledger) common() protocol.Hash {
	var b []byte
	for _, set := range []map[protocol.Hash]*protocol.Record{l.keeps, l.unkeeps, l.opaque} {
		b = append(b, byte(len(set)), byte(len(set)>>8))
		for _, r := range sorted(set) {
			b = append(b, r.Hash[:]...)
		}
	}
	for _, r := range []*protocol.Record{l.end, l.order, l.retry} {
		b = putHash(b, r)
	}
	return sha256.Sum256(b)
}

func (l *ledger) hash() protocol.Hash {
	h := l.common()
	b := h[:]
	for i, s := range l.stages {
		if s == nil {
			continue
		}
		head, tree := s.head(), s.tree()
		b = binary.BigEndian.AppendUint64(b, uint64(i))
		b = append(append(append(b, s.ref.Key[:]...), head[:]...), tree[:]...)
	}
	return sha256.Sum256(b)
}

// partJob is the root of the tree, for another keeper to compare.
func (l *ledger) partJob() protocol.Part {
	p := protocol.Part{Kind: protocol.PartJob, Hashes: []protocol.ShortHash{l.common().Short()}}
	for _, s := range l.stages {
		if s == nil {
			p.Hashes = append(p.Hashes, protocol.ShortHash{}, protocol.ShortHash{})
		} else {
			p.Hashes = append(p.Hashes, s.head().Short(), s.tree().Short())
		}
	}
	return p
}

// partStage is the head of stage i, or its tree; false: it is not open, or has no tasks.
func (l *ledger) partStage(i int, head bool) (protocol.Part, bool) {
	s := l.stages[i]
	switch {
	case s == nil:
		return protocol.Part{}, false
	case head:
		return l.listed(protocol.Part{Kind: protocol.PartHead, Stage: s.ref}), true
	case s.n == 0:
		return protocol.Part{}, false
	}
	return l.partNode(s, uint8(job.TopLevel(s.n)), 0), true
}

// partNode is a node with the hashes of its children or, of a block, of its records.
func (l *ledger) partNode(s *stage, level uint8, number uint64) protocol.Part {
	p := protocol.Part{Kind: protocol.PartNode, Stage: s.ref, Level: level, Number: number}
	if level == 0 {
		return l.listed(p)
	}
	for _, h := range s.children(level, number) {
		p.Hashes = append(p.Hashes, h.Short())
	}
	return p
}

// listed fills in the hashes of a part's records, as many as it may have: those left
// out cost their being sent once more.
func (l *ledger) listed(p protocol.Part) protocol.Part {
	for _, r := range l.recordsIn(&p) {
		if len(p.Hashes) < protocol.MaxPartHashes {
			p.Hashes = append(p.Hashes, r.Hash.Short())
		}
	}
	return p
}

// recordsIn are the records of a part that has no children, each after those it names.
func (l *ledger) recordsIn(p *protocol.Part) []*protocol.Record {
	var list []*protocol.Record
	seen := map[protocol.Hash]bool{}
	add := func(r *protocol.Record) {
		if r != nil && !seen[r.Hash] {
			seen[r.Hash] = true
			list = append(list, r)
		}
	}
	if p.Kind == protocol.PartCommon {
		l.commonRecords(add)
		return list
	}
	s := l.stage(p.Stage)
	switch {
	case s == nil:
	case p.Kind == protocol.PartHead:
		s.headRecords(add)
	case p.Level == 0:
		s.taskRecords(nodeRange(0, p.Number).Intersect(s.all()), add)
	}
	return list
}

// compare answers a part of another keeper's state: with the records that it lacks, as
// far as that can be told, and with the parts to look at next.
func (l *ledger) compare(theirs *protocol.Part) (news []*protocol.Record, next []protocol.Part) {
	switch {
	case theirs.Give:
		for _, r := range l.recordsIn(theirs) {
			if slices.Contains(theirs.Hashes, r.Hash.Short()) {
				news = append(news, r)
			}
		}
		return news, nil
	case theirs.Kind == protocol.PartJob:
		return nil, l.compareJob(theirs)
	case theirs.Kind == protocol.PartNode && theirs.Level > 0:
		return nil, l.compareNode(theirs)
	}
	return l.compareRecords(theirs)
}

func (l *ledger) compareJob(theirs *protocol.Part) (next []protocol.Part) {
	mine := l.partJob()
	if len(theirs.Hashes) != len(mine.Hashes) {
		return nil
	}
	if theirs.Hashes[0] != mine.Hashes[0] {
		next = append(next, l.listed(protocol.Part{Kind: protocol.PartCommon}))
	}
	for i := range l.stages {
		for j, head := range []bool{true, false} {
			if k := 1 + 2*i + j; theirs.Hashes[k] != mine.Hashes[k] {
				if p, ok := l.partStage(i, head); ok {
					next = append(next, p)
				}
			}
		}
	}
	return next
}

func (l *ledger) compareNode(theirs *protocol.Part) (next []protocol.Part) {
	s := l.stage(theirs.Stage)
	if s == nil || int(theirs.Level) > job.TopLevel(s.n) || theirs.Number >= job.SealShape(s.n)[theirs.Level] {
		return nil
	}
	for i, h := range s.children(theirs.Level, theirs.Number) {
		if i < len(theirs.Hashes) && h.Short() != theirs.Hashes[i] {
			next = append(next, l.partNode(s, theirs.Level-1, theirs.Number*protocol.BlockSize+uint64(i)))
		}
	}
	return next
}

// compareRecords gives what the other does not list, and asks for what is not here.
func (l *ledger) compareRecords(theirs *protocol.Part) (news []*protocol.Record, next []protocol.Part) {
	if theirs.Kind != protocol.PartCommon && l.stage(theirs.Stage) == nil {
		return nil, nil
	}
	have := map[protocol.ShortHash]bool{}
	for _, h := range theirs.Hashes {
		have[h] = true
	}
	mine := map[protocol.ShortHash]bool{}
	for _, r := range l.recordsIn(theirs) {
		h := r.Hash.Short()
		mine[h] = true
		if !have[h] {
			news = append(news, r)
		}
	}
	want := *theirs
	want.Give, want.Hashes = true, slices.DeleteFunc(slices.Clone(theirs.Hashes), func(h protocol.ShortHash) bool { return mine[h] })
	slices.SortFunc(want.Hashes, func(a, b protocol.ShortHash) int { return bytes.Compare(a[:], b[:]) })
	if want.Hashes = slices.Compact(want.Hashes); len(want.Hashes) > 0 {
		next = append(next, want)
	}
	return news, next
}
