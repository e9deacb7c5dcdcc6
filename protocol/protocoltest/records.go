package protocoltest

import (
	"fmt"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multiaddr"
	"pgregory.net/rapid"
)

// Kinds are all kinds of records.
var Kinds = [...]protocol.Kind{
	protocol.KindControl, protocol.KindKeep, protocol.KindUnkeep, protocol.KindSegment, protocol.KindDone,
	protocol.KindFailed, protocol.KindCheckpoint, protocol.KindSeal, protocol.KindReopen,
}

// Record draws a signed record of any kind.
func Record(t *rapid.T, job protocol.JobID) protocol.Record {
	signer := Signer(rapid.Uint8Range(0, 9).Draw(t, "signer"))
	return sign(signer, Body(t, rapid.SampledFrom(Kinds[:]).Draw(t, "kind"), job, signer.ID()))
}

func sign(s protocol.Signer, b protocol.Body) protocol.Record {
	r, err := protocol.SignRecord(s, b)
	if err != nil {
		panic(fmt.Sprintf("protocoltest: a body that is not valid: %v", err))
	}
	return r
}

// Body draws what the signer may say with a record of the kind.
func Body(t *rapid.T, kind protocol.Kind, job protocol.JobID, signer protocol.PeerID) protocol.Body {
	switch kind {
	case protocol.KindControl:
		return &protocol.Control{Job: job, Sequence: max(count(t, "sequence"), 1),
			Verb: protocol.Verb(rapid.Uint8Range(1, 5).Draw(t, "verb"))}
	case protocol.KindKeep:
		return &protocol.Keep{Job: job, Groups: groups(t), Sequence: Sequence(t)}
	case protocol.KindUnkeep:
		return &protocol.Unkeep{Job: job, Keep: Hash(t, "keep"), Groups: groups(t), Sequence: Sequence(t)}
	case protocol.KindSegment:
		return segment(t, job, signer)
	case protocol.KindDone:
		return done(t, job)
	case protocol.KindFailed:
		f := &protocol.Failed{StageRef: Stage(t, job), Life: Life(t), Task: Task(t),
			Generation: protocol.Generation(count(t, "generation")),
			Reason:     protocol.Reason(rapid.Uint8Range(1, 9).Draw(t, "reason")),
			Exit:       rapid.Int32().Draw(t, "exit"), Detail: text(t)}
		if f.Reason != protocol.ReasonSuspect {
			f.Attempt = protocol.Attempt(rapid.Uint32Range(1, uint32(protocol.MaxAttempt)).Draw(t, "attempt"))
		}
		if rapid.Bool().Draw(t, "has log") {
			f.Log = CIDs(t, "log")
		}
		return f
	case protocol.KindCheckpoint:
		c := &protocol.Checkpoint{StageRef: Stage(t, job), Life: Life(t), Task: Task(t), Epoch: Epoch(t, 0),
			Sequence: count(t, "sequence"), State: CIDs(t, "state")}
		if rapid.Bool().Draw(t, "has earlier") {
			c.Earlier = CIDs(t, "earlier")
		}
		return c
	case protocol.KindSeal:
		level := rapid.Uint8Range(0, protocol.MaxLevel).Draw(t, "level")
		most := [...]uint64{protocol.MaxTasks>>10 - 1, protocol.MaxTasks>>20 - 1, 0}[level]
		return &protocol.Seal{StageRef: Stage(t, job), Life: Life(t), Level: level, Number: rapid.Uint64Range(0, most).Draw(t, "number"),
			Root: CIDs(t, "root"), Time: rapid.Int64Min(1).Draw(t, "time"), Keep: Hash(t, "keep")}
	case protocol.KindReopen:
		return &protocol.Reopen{StageRef: Stage(t, job), Range: Range(t), Life: max(Life(t), 1),
			Cause: protocol.ReopenCause(rapid.Uint8Range(1, 2).Draw(t, "cause")), Keep: Hash(t, "keep")}
	}
	panic(fmt.Sprintf("protocoltest: no bodies of %v", kind))
}

func segment(t *rapid.T, job protocol.JobID, signer protocol.PeerID) protocol.Body {
	s := &protocol.Segment{StageRef: Stage(t, job), Life: Life(t), Range: Range(t), Epoch: Epoch(t, 1),
		Cause: protocol.Cause(rapid.Uint8Range(1, 4).Draw(t, "cause"))}
	switch s.Cause {
	case protocol.CauseGrant:
		s.Holder, s.Replaced = Peer(t, 10, 19, "holder"), signer
	case protocol.CauseRelease:
		s.Replaced = signer
	case protocol.CauseReleaseFor:
		s.Replaced, s.Keep = Peer(t, 0, 19, "replaced"), Hash(t, "keep")
	case protocol.CauseAdopt:
		s.Holder = signer
	}
	return s
}

// Receipt draws what a keeper may sign.
func Receipt(t *rapid.T) protocol.Receipt {
	return protocol.Receipt{StageRef: Stage(t, Job(t)), Life: Life(t), Range: BlockRange(t, protocol.BlockSize),
		Page: CIDs(t, "page"), Keep: Hash(t, "keep")}
}

func done(t *rapid.T, job protocol.JobID) protocol.Body {
	r := Receipt(t)
	r.Job = job
	d := &protocol.Done{StageRef: r.StageRef, Life: r.Life, Range: r.Range, Page: r.Page}
	for i := range rapid.Uint8Range(1, protocol.MaxReceipts).Draw(t, "receipts") {
		r.Keep = Hash(t, "keep")
		receipt, err := protocol.SignReceipt(Signer(i), r)
		if err != nil {
			panic(err)
		}
		d.Receipts = append(d.Receipts, receipt)
	}
	return d
}

// Announcement draws a signed announcement.
func Announcement(t *rapid.T) protocol.Announcement {
	now := rapid.Int64Range(1, 1<<45).Draw(t, "time")
	a := protocol.Announcement{Job: Job(t), Owner: Peer(t, 20, 29, "owner"),
		Memory: rapid.Uint64Range(0, 1<<62).Draw(t, "memory"), Tasks: rapid.Uint64Range(0, protocol.MaxTasks).Draw(t, "tasks"),
		Priority: rapid.Int32().Draw(t, "priority"), Time: now, Expires: now + rapid.Int64Range(1, 1<<40).Draw(t, "expires")}
	for range rapid.IntRange(0, protocol.MaxAnnouncedKeepers).Draw(t, "keepers") {
		k := protocol.KeeperAddrs{Peer: Peer(t, 0, 9, "keeper")}
		for range rapid.IntRange(0, protocol.MaxAnnouncedAddrs).Draw(t, "addrs") {
			k.Addrs = append(k.Addrs, multiaddr.StringCast(rapid.SampledFrom([]string{
				"/ip4/10.1.2.3/tcp/7740", "/ip6/2001:db8::1/udp/7740/quic-v1", "/dns4/mesh.example/tcp/7740",
			}).Draw(t, "addr")))
		}
		a.Keepers = append(a.Keepers, k)
	}
	a, err := protocol.SignAnnouncement(Signer(rapid.Uint8Range(0, 9).Draw(t, "signer")), a)
	if err != nil {
		panic(err)
	}
	return a
}

// PageChunk draws a page's CID and bytes.
func PageChunk(t *rapid.T) (cid.Cid, []byte) {
	c, b, err := protocol.EncodePage(Page(t))
	if err != nil {
		panic(err)
	}
	return c, b
}
