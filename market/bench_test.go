package market

import (
	"fmt"
	"testing"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// benchSizes are the tasks of a large job and of the largest that the design speaks of.
var benchSizes = []uint64{10_000, 1_000_000}

// doneLedger is the ledger of a job with a keeper, and Done records that cover its tasks in
// pages of 100 by 50 workers.
func doneLedger(b *testing.B, n uint64) (*job.Signed, *protocol.Record, []*protocol.Record) {
	b.Helper()
	j := testJob(b, n, nil)
	keep := signed(b, testPeer(0), &protocol.Keep{Job: j.ID, Groups: protocol.AllGroups(j.Manifest.Groups)})
	var list []*protocol.Record
	for lo := uint64(0); lo < n; {
		hi := min(lo+100, n, (lo/protocol.BlockSize+1)*protocol.BlockSize)
		d := &protocol.Done{StageRef: firstRef(j), Range: tasks(protocol.TaskIndex(lo), protocol.TaskIndex(hi)), Page: testCID(cid.Raw, fmt.Sprint(lo))}
		d.Receipts = []protocol.SignedReceipt{receiptOf(b, 0, d, keep.Hash)}
		list = append(list, signed(b, testPeer(1+int(lo/100)%50), d))
		lo = hi
	}
	return j, keep, list
}

func filled(b *testing.B, j *job.Signed, keep *protocol.Record, list []*protocol.Record) *ledger {
	l := newLedger(j)
	for _, rec := range append([]*protocol.Record{keep}, list...) {
		if _, err := l.add(rec); err != nil {
			b.Fatal(err)
		}
	}
	return l
}

// BenchmarkAddDone is a Done joined into the ledger, the whole job over and over: each is
// one op.
func BenchmarkAddDone(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			j, keep, list := doneLedger(b, n)
			l := filled(b, j, keep, nil)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				if i%len(list) == 0 && i > 0 {
					b.StopTimer()
					l = filled(b, j, keep, nil)
					b.StartTimer()
				}
				if _, err := l.add(list[i%len(list)]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkDigest is the digest after one change, of a job all of whose tasks are done and
// none sealed: 100 spans a 10,000 tasks.
func BenchmarkDigest(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			l := filled(doneOf(b, n))
			b.ReportAllocs()
			for b.Loop() {
				l.version++
				l.digest()
			}
		})
	}
}

// doneOf is doneLedger as the arguments of filled.
func doneOf(b *testing.B, n uint64) (*testing.B, *job.Signed, *protocol.Record, []*protocol.Record) {
	j, keep, list := doneLedger(b, n)
	return b, j, keep, list
}

// BenchmarkRecords is the listing of the visible state, for an exchange.
func BenchmarkRecords(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			l := filled(doneOf(b, n))
			b.ReportAllocs()
			for b.Loop() {
				if len(l.records()) < int(n/1024) {
					b.Fatal("records are missing")
				}
			}
		})
	}
}

// BenchmarkBidAndGrant is a holder that takes a bid and grants it a few tasks, with cheap
// signatures: each bid is of another peer, whose rate is a two-thousandth of the holder's.
func BenchmarkBidAndGrant(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			j := testJob(b, n, nil)
			ref := firstRef(j)
			var m *Machine
			now := time.Second
			granted := 0
			b.ReportAllocs()
			for i := range b.N {
				if i%1000 == 0 {
					b.StopTimer()
					m = testMachine(b, 0, func(c *Config) { c.Gather = 0 })
					step(b, m, now, Submit{j})
					m.Ready()
					m.swarms[j.ID].shares[0].pace().ran(10 * time.Millisecond)
					b.StartTimer()
				}
				now += time.Millisecond
				step(b, m, now, Received{testPeer(1 + i%1000).ID(), &protocol.Bid{
					Job: j.ID, ID: protocol.Sequence{Counter: uint64(i + 1)}, Slots: 1, Rate: 100, Memory: 8 << 30, Stage: ref,
				}})
				for _, s := range m.Ready().Send {
					if _, ok := s.Message.(*protocol.Grant); ok {
						granted++
					}
				}
			}
			b.ReportMetric(float64(granted)/float64(b.N), "grants/op")
		})
	}
}

// BenchmarkEnded is the machine's own cost of a task that does nothing, on a peer alone:
// Ended in, the next Run out, pages and Done records included.
func BenchmarkEnded(b *testing.B) {
	j := testJob(b, 1_000_000, nil)
	var m *Machine
	var runs []Run
	now := time.Second
	left := uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		if left == 0 {
			b.StopTimer()
			m = testMachine(b, 0, nil)
			step(b, m, now, Submit{j})
			runs, left = m.Ready().Run, 500_000
			b.StartTimer()
		}
		if len(runs) == 0 {
			b.Fatal("nothing runs")
		}
		now += 50 * time.Microsecond
		r := runs[0]
		step(b, m, now, Ended{ID: r.ID, Outcome: OutcomeDone, Wall: 100 * time.Microsecond})
		left--
		e := m.Ready()
		runs = append(runs[1:], e.Run...)
	}
}
