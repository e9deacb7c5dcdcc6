package protocol

import (
	"unicode/utf8"

	"github.com/ipfs/go-cid"
)

// Bounds of what only counts up: so far above what is honest that they never bind, so
// low that adding one cannot overflow.
const (
	// MaxCount bounds sequence numbers, incarnations and generations: Unix ms are below
	// 2^41, and every implementation has integers of 53 bits.
	MaxCount = 1 << 53
	// MaxLife is a reopening every half minute of a year.
	MaxLife Life = 1 << 20
	// MaxAttempt bounds what a manifest may allow, and so what a peer may count to.
	MaxAttempt Attempt = 1 << 20
)

// CIDs of chunks have one form: version 1, sha2-256, and a codec of three.
const (
	cidSize     = 36
	codecRaw    = 0x55
	codecDagPB  = 0x70
	codecDagCBR = 0x71
)

// ValidCID tells whether c may name a chunk: CIDv1, sha2-256, of the codec raw, dag-pb
// or dag-cbor.
func ValidCID(c cid.Cid) bool { return validCID(c.KeyString()) }

func validCID(b string) bool {
	return len(b) == cidSize && b[0] == 1 && b[2] == 0x12 && b[3] == 0x20 &&
		(b[1] == codecRaw || b[1] == codecDagPB || b[1] == codecDagCBR)
}

func (c *check) job(j JobID) { c.that(validCID(string(j)), "job is no CIDv1 of sha2-256") }

func (c *check) stage(s StageRef) {
	c.job(s.Job)
	c.that(s.Stage < MaxStages, "stage number over the limit")
	c.that(!s.Key.IsZero(), "no input key")
}

func (c *check) life(l Life) { c.that(l <= MaxLife, "life over the limit") }

func (c *check) ranges(r Range) {
	c.that(r.Lo < r.Hi, "empty range")
	c.that(r.Hi <= MaxTasks, "range over the limit")
}

// block is ranges for results: a page has tasks of one block, whose chunk group it is in.
func (c *check) block(r Range) {
	c.ranges(r)
	c.that(r.Lo.Block() == (r.Hi-1).Block(), "range of results crosses a block's end")
}

func (c *check) task(t TaskIndex)           { c.that(t < MaxTasks, "task over the limit") }
func (c *check) epoch(e Epoch)              { c.that(e <= MaxEpoch, "epoch over the limit") }
func (c *check) count(n uint64, say string) { c.that(n <= MaxCount, say) }

func (c *check) sequence(s Sequence) {
	c.count(s.Incarnation, "incarnation over the limit")
	c.count(s.Counter, "counter over the limit")
}

func (c *check) text(s string) {
	c.that(len(s) <= MaxDetail, "text over the limit")
	c.that(utf8.ValidString(s), "text is not UTF-8")
}

// rules is what each body and receipt knows of itself: the rules of SPEC.md that follow
// from its bytes and its signer.
type rules interface{ validate(signer PeerID) error }

func (c *Control) validate(PeerID) error {
	v := check{subject: "control"}
	v.job(c.Job)
	v.that(c.Sequence > 0, "no sequence number")
	v.count(c.Sequence, "sequence number over the limit")
	v.that(c.Verb >= VerbCancel && c.Verb <= VerbRetry, "unknown verb")
	return v.err
}

func (k *Keep) validate(PeerID) error {
	v := check{subject: "keep"}
	v.job(k.Job)
	v.sequence(k.Sequence)
	return v.err
}

func (u *Unkeep) validate(PeerID) error {
	v := check{subject: "unkeep"}
	v.job(u.Job)
	v.that(!u.Keep.IsZero(), "names no keep")
	v.sequence(u.Sequence)
	return v.err
}

func (s *Segment) validate(signer PeerID) error {
	v := check{subject: "segment"}
	v.stage(s.StageRef)
	v.life(s.Life)
	v.ranges(s.Range)
	v.epoch(s.Epoch)
	v.that(s.Holder == "" || ValidPeer(s.Holder), "holder is no Ed25519 peer")
	v.that(s.Replaced == "" || ValidPeer(s.Replaced), "replaced holder is no Ed25519 peer")
	v.that(s.Epoch > 0, "epoch 0, which nobody has to say")
	v.that((s.Cause == CauseReleaseFor) != s.Keep.IsZero(), "names a keep where it is no release for another, or none where it is")
	switch s.Cause {
	case CauseGrant:
		v.that(s.Holder != "" && s.Holder != s.Replaced, "grant without a new holder")
		v.that(s.Replaced == signer, "grant not signed by the holder it replaces")
	case CauseRelease:
		v.that(s.Holder == "", "release with a holder")
		v.that(s.Replaced == signer, "release not signed by the holder it replaces")
	case CauseReleaseFor:
		v.that(s.Holder == "", "release for another with a holder")
		v.that(s.Replaced != "", "release for nobody")
	case CauseAdopt:
		v.that(s.Holder == signer, "adoption not signed by the new holder")
		v.that(s.Replaced == "", "adoption of a range that has a holder")
	default:
		v.that(false, "unknown cause")
	}
	return v.err
}

func (r *Receipt) validate(PeerID) error {
	v := check{subject: "receipt"}
	v.stage(r.StageRef)
	v.life(r.Life)
	v.block(r.Range)
	v.that(ValidCID(r.Page), "page is no chunk")
	v.that(!r.Keep.IsZero(), "names no keep")
	return v.err
}

func (d *Done) validate(PeerID) error {
	v := check{subject: "done"}
	v.stage(d.StageRef)
	v.life(d.Life)
	v.block(d.Range)
	v.that(ValidCID(d.Page), "page is no chunk")
	v.that(len(d.Receipts) > 0, "no receipt")
	v.that(len(d.Receipts) <= MaxReceipts, "too many receipts")
	if v.err != nil {
		return v.err
	}
	for i := range d.Receipts {
		r := &d.Receipts[i]
		v.that(len(r.Raw) > 0, "a receipt that is not signed")
		v.that(r.StageRef == d.StageRef && r.Life == d.Life && r.Range == d.Range && r.Page == d.Page,
			"a receipt is for something else")
		for j := range i {
			v.that(r.Signer != d.Receipts[j].Signer, "two receipts by one signer")
		}
	}
	return v.err
}

func (f *Failed) validate(PeerID) error {
	v := check{subject: "failed"}
	v.stage(f.StageRef)
	v.life(f.Life)
	v.task(f.Task)
	v.count(uint64(f.Generation), "generation over the limit")
	v.that((f.Attempt > 0) == (f.Reason != ReasonSuspect), "no attempt, or one where none is counted")
	v.that(f.Attempt <= MaxAttempt, "attempt over the limit")
	v.that(f.Reason >= ReasonExit && f.Reason <= ReasonHang, "unknown reason")
	v.text(f.Detail)
	v.that(!f.Log.Defined() || ValidCID(f.Log), "log is no chunk")
	return v.err
}

func (c *Checkpoint) validate(PeerID) error {
	v := check{subject: "checkpoint"}
	v.stage(c.StageRef)
	v.life(c.Life)
	v.task(c.Task)
	v.epoch(c.Epoch)
	v.count(c.Sequence, "sequence number over the limit")
	v.that(ValidCID(c.State), "state is no chunk")
	v.that(!c.Earlier.Defined() || ValidCID(c.Earlier), "earlier state is no chunk")
	return v.err
}

func (s *Seal) validate(PeerID) error {
	v := check{subject: "seal"}
	v.stage(s.StageRef)
	v.life(s.Life)
	v.that(s.Level <= MaxLevel, "level over the limit")
	if v.err == nil {
		blocks := uint64(MaxTasks / BlockSize)
		for range s.Level {
			blocks /= BlockSize
		}
		v.that(s.Number < max(blocks, 1), "number over the limit")
	}
	v.that(ValidCID(s.Root), "root is no chunk")
	v.that(s.Time > 0, "no time")
	v.that(!s.Keep.IsZero(), "names no keep")
	return v.err
}

func (r *Reopen) validate(PeerID) error {
	v := check{subject: "reopen"}
	v.stage(r.StageRef)
	v.ranges(r.Range)
	v.that(r.Life > 0, "no new life")
	v.life(r.Life)
	v.that(r.Cause == ReopenLost || r.Cause == ReopenEpoch, "unknown cause")
	v.that(!r.Keep.IsZero(), "names no keep")
	return v.err
}

func (o *Opaque) validate(PeerID) error {
	v := check{subject: "record of an unknown kind"}
	v.job(o.Job)
	v.that(o.Code > KindReopen && o.Code <= MaxKind, "kind out of range")
	return v.err
}
