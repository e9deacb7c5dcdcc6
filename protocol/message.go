package protocol

import (
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multiaddr"
)

// Message is what two peers of a swarm say to one another on their kept stream.
// Every message is idempotent, and whoever sends one goes on without an answer.
// Messages are immutable once sent or received.
type Message interface{ message() }

// News carries ledger records: up from a member to its keepers, down from a keeper
// (control, keeps, seals, what concerns the member), across between keepers.
type News struct {
	Job     JobID
	Records []Record
}

// Digest tells another keeper of the job what the sender's visible state is. A keeper
// whose own differs answers with a Compare. Want asks for an answer in any case.
type Digest struct {
	Job   JobID
	State Hash
	Want  bool
}

// JobsRequest asks a peer for the open jobs it knows.
type JobsRequest struct{}

// Jobs is a peer's table of open announcements, or a part of it.
type Jobs struct{ Announcements []Announcement }

// WorkRequest asks a keeper where there is work for the sender. It makes the sender a
// member in the keeper's eyes: news go to it from then on. One that nothing is known for
// stands: the keeper answers again when there is something.
type WorkRequest struct {
	Job   JobID
	Known Hash // of what the sender knows of control, keeps and seals: SPEC.md section 8
}

// Hint is what a holder was last known to have to give.
type Hint struct {
	Holder   PeerID
	Stage    StageRef
	Backlog  uint64   // tasks neither done nor running
	Rate     Rate     // of the holder, for this stage; 0: not measured yet
	Sequence Sequence // the holder's, when it said so: a newer one always wins
	Age      uint32   // ms since then, as far as the sender of the hint knows
	Tail     uint32   // ms until the last of the tasks that it runs is expected to end
}

// Rate is a speed in thousandths of a task a second.
type Rate uint64

// Open is a range of tasks that have no holder and are not done.
type Open struct {
	Stage StageRef
	Life  Life
	Range Range
	Epoch Epoch // the highest epoch in it
}

// WorkAnswer answers a WorkRequest. What the asker lacks of control, keeps and seals
// comes before it as News. Done and without members it says, in answer to anything, that the
// job was let go of.
type WorkAnswer struct {
	Job     JobID
	Hints   []Hint
	Open    []Open
	Members uint32 // about how many members the job has, for spacing adoptions
	State   JobState
}

// JobState is how far a job is.
type JobState uint8

const (
	JobRunning   JobState = 1 // perhaps stalled
	JobFailed    JobState = 2
	JobDone      JobState = 3
	JobCancelled JobState = 4
)

// Bid asks a holder for tasks. It stands until it is granted, refused, replaced by one
// with a higher ID of the same bidder, or BidTime has passed at the holder.
type Bid struct {
	Job    JobID
	ID     Sequence
	Slots  uint32
	Rate   Rate // for the stage that it bids for, all slots together; 0: not measured yet
	Memory uint64
	Groups GroupSet // chunk groups that the bidder has
	Stage  StageRef
	Drain  uint32 // ms of work the bidder has left
}

// Grant answers a bid with Segments whose holder is the bidder.
type Grant struct {
	Job      JobID
	Bid      Sequence
	Segments []Record
	Left     uint64 // tasks that the granter could give still
}

// Refusal answers a bid that the holder can't serve, with other holders it knows.
type Refusal struct {
	Job   JobID
	Bid   Sequence
	Hints []Hint
}

// Work is what a member runs and holds of one stage.
type Work struct {
	Stage   StageRef
	Running []TaskIndex // at most MaxRunning
	Held    []Held      // at most MaxHeld; open tasks, what it runs included
	Backlog uint64
	Rate    Rate
	Tail    uint32 // ms until the last of Running is expected to end
}

// Held is a range that the sender takes itself to be the holder of.
type Held struct {
	Life  Life
	Range Range
	Epoch Epoch
}

// Beat says that a member lives and what it does. It goes every BeatTime to two keepers
// of each job that it works for.
type Beat struct {
	Sequence Sequence
	Job      JobID
	Work     []Work
	Trouble  string // why it last gave a task back that it could not run; at most MaxDetail bytes
}

// KeepRequest invites a peer to keep a job or, of one that has taken its Keep back, asks a
// keeper whether it may let go of the chunks.
type KeepRequest struct {
	Job     JobID
	Groups  GroupSet
	Leaving bool // it is no invitation
}

// KeepAnswer says that the invited peer is at it, or why it will not. An accepted
// invitation ends with its Keep as News; the answer is repeated until then.
type KeepAnswer struct {
	Job      JobID
	Accepted bool
	Reason   string   // for people, at most MaxDetail bytes
	Holds    bool     // to who leaves: the sender keeps groups that it was asked about and has, durable, all that is to be kept with them
	Groups   GroupSet // of Holds: which
}

// ReceiptRequest asks a keeper to store a page and the outputs that it names.
type ReceiptRequest struct {
	StageRef
	Life  Life
	Range Range
	Page  cid.Cid
	Bytes []byte // the page itself
}

// ReceiptAnswer carries the receipt, or the reason why there is none.
type ReceiptAnswer struct {
	Job     JobID
	Page    cid.Cid
	Receipt *SignedReceipt // nil: refused
	Reason  string
	Members uint32 // about how many members the job has
}

// Stored tells other keepers which pages are durable with the sender.
type Stored struct {
	Job   JobID
	Pages []cid.Cid
}

// Suspect asks another keeper whether it sees a member alive.
type Suspect struct {
	Job    JobID
	Member PeerID
}

// Opinion answers a Suspect.
type Opinion struct {
	Job    JobID
	Member PeerID
	Alive  bool
}

// Backup answers a bid, where nothing is left to grant, with a copy of a task that the
// holder runs and that the bidder would end sooner. The first result wins.
type Backup struct {
	Job   JobID
	Bid   Sequence
	Stage StageRef
	Life  Life
	Task  TaskIndex
}

// Replicate asks a keeper to store a file, as the state of a checkpoint. It answers
// with Stored when the file is durable with it.
type Replicate struct {
	Job  JobID
	Root cid.Cid
}

// Acknowledge tells a keeper that the sender has stopped all it ran for a job, as the
// owner's cancel or remove ordered.
type Acknowledge struct {
	Job   JobID
	Order Hash // of the Control
}

func (*News) message()           {}
func (*Digest) message()         {}
func (*JobsRequest) message()    {}
func (*Jobs) message()           {}
func (*WorkRequest) message()    {}
func (*WorkAnswer) message()     {}
func (*Bid) message()            {}
func (*Grant) message()          {}
func (*Refusal) message()        {}
func (*Beat) message()           {}
func (*KeepRequest) message()    {}
func (*KeepAnswer) message()     {}
func (*ReceiptRequest) message() {}
func (*ReceiptAnswer) message()  {}
func (*Stored) message()         {}
func (*Suspect) message()        {}
func (*Opinion) message()        {}
func (*Backup) message()         {}
func (*Replicate) message()      {}
func (*Acknowledge) message()    {}

// Announcement tells the mesh that a job is open. It is a hint, signed by a keeper, of
// at most MaxAnnouncement bytes.
type Announcement struct {
	Raw      []byte // the signed envelope
	Signer   PeerID
	Job      JobID
	Owner    PeerID
	Memory   uint64 // bytes that a task needs: its resource class
	Tasks    uint64 // in all stages
	Priority int32
	Time     int64 // Unix ms when it was made
	Expires  int64 // Unix ms: the job's
	Keepers  []KeeperAddrs
}

// KeeperAddrs is where a keeper is to be found. At most MaxAnnouncedKeepers of them
// with at most MaxAnnouncedAddrs addresses each.
type KeeperAddrs struct {
	Peer  PeerID
	Addrs []multiaddr.Multiaddr
}
