package protocol

import (
	"github.com/ipfs/go-cid"
)

// Kind says which of the ledger's records a record is. The numbers are on the wire:
// they are never changed or used again.
type Kind uint8

const (
	KindControl    Kind = 1
	KindKeep       Kind = 2
	KindUnkeep     Kind = 3
	KindSegment    Kind = 4
	KindDone       Kind = 5
	KindFailed     Kind = 6
	KindCheckpoint Kind = 7
	KindSeal       Kind = 8
	KindReopen     Kind = 9
)

// Body is what a ledger record says: one of *Control, *Keep, *Unkeep, *Segment, *Done,
// *Failed, *Checkpoint, *Seal, *Reopen, or *Opaque for a kind of a later version.
// Bodies are immutable once they are in a Record.
type Body interface {
	Kind() Kind
	JobID() JobID
}

// Record is a ledger record whose signature has been checked.
// Raw is the signed envelope as it was made: it is kept and forwarded as it is, and
// never encoded again. A Record is immutable and may be shared.
type Record struct {
	Raw    []byte
	Hash   Hash   // of Raw's signed payload and signer; the last tie-break of the join
	Signer PeerID // the key that signed; for Control the owner's
	Body   Body
}

// Verb is what an owner orders.
type Verb uint8

const (
	VerbCancel Verb = 1 // absorbing: the job stops everywhere
	VerbRemove Verb = 2 // absorbing: it stops, and its results go
	VerbPause  Verb = 3
	VerbResume Verb = 4
	VerbRetry  Verb = 5 // starts a generation: failed attempts before it count no more
)

// Control is an order of the job's owner.
type Control struct {
	Job      JobID
	Sequence uint64 // grows with each order; an owner uses max(last seen + 1, Unix ms)
	Verb     Verb
}

// Keep says that the signer keeps the job's ledger and the chunks of the groups,
// from now until the job is cancelled, expires, or its retention ends.
type Keep struct {
	Job      JobID
	Groups   GroupSet
	Sequence Sequence // makes Keeps of one peer distinct, and orders them with its Unkeeps
}

// Unkeep ends the signer's duty for the groups.
type Unkeep struct {
	Job      JobID
	Keep     Hash // the Keep that it revokes, for the groups named
	Groups   GroupSet
	Sequence Sequence
}

// StageRef names the state of a stage: what was computed from a losing seal has
// another key, and so goes as a whole.
type StageRef struct {
	Job   JobID
	Stage StageIndex
	Key   InputKey
}

// JobID makes every stage record a Body's part.
func (s StageRef) JobID() JobID { return s.Job }

// Cause says why a range changed hands.
type Cause uint8

const (
	CauseGrant      Cause = 1 // signed by the replaced holder, for a bidder
	CauseRelease    Cause = 2 // signed by the replaced holder; the range has no holder
	CauseReleaseFor Cause = 3 // signed by a keeper for a holder that is gone; no holder
	CauseAdopt      Cause = 4 // signed by the new holder of a range that had none
)

// Segment says who should run the tasks of a range. It is advice: no result's validity
// depends on it.
type Segment struct {
	StageRef
	Life     Life
	Range    Range
	Epoch    Epoch  // above the epochs it replaces
	Holder   PeerID // empty: none
	Cause    Cause
	Replaced PeerID // the holder before; empty: none
	Keep     Hash   // the signer's Keep, for CauseReleaseFor; else zero
}

// Receipt is a keeper's signature that a page and the outputs it names are durable
// with it. It is no ledger record: it travels inside a Done.
type Receipt struct {
	StageRef
	Life  Life
	Range Range
	Page  cid.Cid
	Keep  Hash // the signer's Keep
}

// SignedReceipt is a Receipt whose signature has been checked.
type SignedReceipt struct {
	Raw    []byte
	Signer PeerID
	Receipt
}

// Done says that results of a range exist and are durable with the receipts' signers.
type Done struct {
	StageRef
	Life     Life
	Range    Range
	Page     cid.Cid
	Receipts []SignedReceipt // 1 to MaxReceipts, by different signers, for this page and range
}

// Reason is the class of a failed attempt.
type Reason uint8

const (
	ReasonExit    Reason = 1 // an exit status that the manifest does not allow
	ReasonTrap    Reason = 2
	ReasonTimeout Reason = 3
	ReasonMemory  Reason = 4
	ReasonOutput  Reason = 5
	ReasonDisk    Reason = 6
	ReasonDeath   Reason = 7 // meshd died while the task ran alone in it
	ReasonSuspect Reason = 8 // meshd died while the task ran beside others: no attempt, but it next runs alone
	ReasonHang    Reason = 9 // time: it went on from a checkpoint and made none; it next starts anew
)

// Failed says how often the signer has failed at a task in a generation: at least once, or
// never where the reason is ReasonSuspect.
type Failed struct {
	StageRef
	Life       Life
	Task       TaskIndex
	Generation Generation
	Attempt    Attempt
	Reason     Reason
	Exit       int32  // exit status, for ReasonExit
	Detail     string // at most MaxDetail bytes of UTF-8, for people; never trusted
	Log        cid.Cid
}

// Checkpoint says where to go on with a task.
type Checkpoint struct {
	StageRef
	Life     Life
	Task     TaskIndex
	Epoch    Epoch
	Sequence uint64
	State    cid.Cid
	Earlier  cid.Cid // the state before it, for when that can't be had or restored; cid.Undef: none
}

// States are those that the task can go on from, the newest first.
func (c *Checkpoint) States() []cid.Cid {
	if c.Earlier.Defined() {
		return []cid.Cid{c.State, c.Earlier}
	}
	return []cid.Cid{c.State}
}

// Seal fixes results: of the tasks of a block (level 0), of BlockSize seals of the
// level below, at the top level of the whole stage.
type Seal struct {
	StageRef
	Life   Life // the highest of the tasks it covers; it stands for all of them
	Level  uint8
	Number uint64 // the first task it covers is Number * BlockSize^(Level+1)
	Root   cid.Cid
	Time   int64 // Unix ms when it was made: retention is counted from the last seal's
	Keep   Hash  // the signer's Keep
}

// ReopenCause says why tasks start a new life.
type ReopenCause uint8

const (
	ReopenLost  ReopenCause = 1 // nobody serves their results
	ReopenEpoch ReopenCause = 2 // their epochs are absurd
)

// Reopen starts a new life for the tasks of a range.
type Reopen struct {
	StageRef
	Range Range
	Life  Life // the new one
	Cause ReopenCause
	Keep  Hash // the signer's Keep
}

// Opaque is a record of a kind that this version does not know. It is kept and
// forwarded under a cap, so that two versions agree on what they store.
type Opaque struct {
	Job  JobID
	Code Kind
}

func (*Control) Kind() Kind    { return KindControl }
func (*Keep) Kind() Kind       { return KindKeep }
func (*Unkeep) Kind() Kind     { return KindUnkeep }
func (*Segment) Kind() Kind    { return KindSegment }
func (*Done) Kind() Kind       { return KindDone }
func (*Failed) Kind() Kind     { return KindFailed }
func (*Checkpoint) Kind() Kind { return KindCheckpoint }
func (*Seal) Kind() Kind       { return KindSeal }
func (*Reopen) Kind() Kind     { return KindReopen }
func (o *Opaque) Kind() Kind   { return o.Code }

func (c *Control) JobID() JobID { return c.Job }
func (k *Keep) JobID() JobID    { return k.Job }
func (u *Unkeep) JobID() JobID  { return u.Job }
func (o *Opaque) JobID() JobID  { return o.Job }
