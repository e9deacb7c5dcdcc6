package market

import (
	"fmt"
	"testing"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// What a ledger costs, in bytes of signed records, at most: the terms of docs/design.md
// section 5.1 "Size". A block that is open has a Done with two receipts for each of its
// tasks in the worst case; a sealed one has a Seal.
const (
	bytesOfOpenBlock = protocol.BlockSize * 1024
	bytesOfSeal      = 400
	bytesOfSegment   = 400
	bytesOfKeeper    = 400
)

// The ledger of a job of a million tasks, of which the last block is still open with a
// result of its own for each task, stays under its bound and under 4 MiB.
func TestLedgerOfAMillionTasks(t *testing.T) {
	const n = 1_000_000
	j := testJob(t, n, nil)
	l := newLedger(j)
	add := func(rec *protocol.Record) {
		t.Helper()
		if _, err := l.add(rec); err != nil {
			t.Fatal(err)
		}
	}
	const keepers = 4
	var keeps [keepers]protocol.Hash
	for i := range keepers {
		rec := signed(t, testPeer(i), &protocol.Keep{Job: j.ID, Groups: protocol.AllGroups(j.Manifest.Groups), Sequence: protocol.Sequence{Incarnation: 1 << 40, Counter: 1 << 20}})
		add(rec)
		keeps[i] = rec.Hash
	}
	blocks := protocol.TaskIndex(n-1).Block() + 1
	for b := range blocks - 1 {
		add(signed(t, testPeer(0), &protocol.Seal{StageRef: firstRef(j), Number: uint64(b), Root: testCID(cid.DagCBOR, fmt.Sprint(b)), Time: 1 << 41, Keep: keeps[0]}))
	}
	for i := (blocks - 1).Range(n).Lo; i < n; i++ {
		d := &protocol.Done{StageRef: firstRef(j), Range: tasks(i, i+1), Page: testCID(cid.Raw, fmt.Sprint(i))}
		d.Receipts = []protocol.SignedReceipt{receiptOf(t, 0, d, keeps[0]), receiptOf(t, 1, d, keeps[1])}
		add(signed(t, testPeer(1), d))
	}
	size := 0
	for _, r := range l.records() {
		size += len(r.Raw)
	}
	bound := bytesOfOpenBlock + int(blocks)*bytesOfSeal + keepers*bytesOfKeeper
	if size > bound || bound > 4<<20 {
		t.Errorf("a ledger of %d bytes, with a bound of %d", size, bound)
	}
	// A segment for each span that a stage may have is the most that it can grow by.
	grant := signed(t, testPeer(1), &protocol.Segment{StageRef: firstRef(j), Range: tasks(1<<29, 1<<30), Epoch: 1 << 30, Holder: testPeer(2).ID(), Cause: protocol.CauseGrant, Replaced: testPeer(1).ID()})
	if len(grant.Raw) > bytesOfSegment {
		t.Errorf("a segment of %d bytes, at most %d", len(grant.Raw), bytesOfSegment)
	}
	if levels := job.TopLevel(n); levels != 1 {
		t.Errorf("%d levels of seals", levels)
	}
}

// A keeper of more members than it can follow forgets those that were silent longest, and keeps
// most of its table.
func TestMembersAreBounded(t *testing.T) {
	m := testMachine(t, 0, nil)
	s := newSwarm(m, testJob(t, 10, nil))
	name := func(i int) protocol.PeerID { return protocol.PeerID(fmt.Sprintf("%07d", 7919*i%1e7)) }
	const n = 2*MaxMembers + 1
	for i := range n {
		m.now.Mono++
		s.memberSeen(name(i))
		s.memberSeen(name(0))
	}
	if len(s.watch.members) > MaxMembers || len(s.watch.members) < MaxMembers/2 {
		t.Errorf("%d members are followed", len(s.watch.members))
	}
	for i := range n {
		if known := s.watch.members[name(i)] != nil; known != (i == 0 || i > n-len(s.watch.members)) {
			t.Fatalf("member %d of %d, in the order that they were heard: known is %v", i, n, known)
		}
	}
}
