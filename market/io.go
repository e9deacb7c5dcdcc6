package market

import (
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// Instant is a moment as the driver sees it. Mono is monotonic, local and unrelated to
// any other machine's; all waits are measured by it. Unix is the wall clock in
// milliseconds: it dates seals and announcements, and ends jobs that expired; nothing
// else reads it.
type Instant struct {
	Mono time.Duration
	Unix int64
}

// Input is what happened: the argument of Step.
type Input interface{ input() }

// Submit is a job that was submitted to this peer. All its chunks are in the local
// store, durable.
type Submit struct{ Job *job.Signed }

// Announced is a job heard of by gossip.
type Announced struct{ Announcement protocol.Announcement }

// Received is a message of another peer. Records in it have been opened.
type Received struct {
	From    protocol.PeerID
	Message protocol.Message
}

// PeerUp is a peer of this mesh that we are now connected to.
type PeerUp struct{ Peer protocol.PeerID }

// PeerDown is a peer whose last connection is gone.
type PeerDown struct{ Peer protocol.PeerID }

// Probed answers a Probe effect.
type Probed struct {
	Peer  protocol.PeerID
	Alive bool
}

// Ordered is a Control that this machine's owner signed.
type Ordered struct{ Record protocol.Record }

// Fetched ends a Fetch effect. Err is nil only where everything asked for is in the
// local store (not necessarily durable: see Effects.Sync).
type Fetched struct {
	ID   FetchID
	Err  error
	Job  *job.Signed // of a FetchManifest
	Data []byte      // of a FetchPage or LoadPage: the page

	Groups protocol.GroupSet // of a FetchJob with Err: the groups that are here as a whole all the same
}

// Ended is how a Run ended. Exactly one Ended answers every Run, stopped ones included.
type Ended struct {
	ID      RunID
	Outcome Outcome
	Result  protocol.Result // OutcomeDone: its files are in the local store, not necessarily durable
	Reason  protocol.Reason // OutcomeFailed
	Exit    int32           // OutcomeFailed with ReasonExit
	Detail  string          // for people, at most protocol.MaxDetail bytes
	Log     cid.Cid         // OutcomeFailed: the log's file, or cid.Undef
	Wall    time.Duration   // that the program ran
	Missing cid.Cid         // OutcomeReleased: a chunk of its input that nobody serves, or cid.Undef
}

// Outcome is the way in which a run ended.
type Outcome uint8

const (
	OutcomeDone     Outcome = 1
	OutcomeFailed   Outcome = 2 // the program's fault; it counts
	OutcomeReleased Outcome = 3 // ours: input missing, disk full, no engine; it counts nothing
	OutcomeStopped  Outcome = 4 // a Stop effect, or meshd is closing
)

// Checkpointed is a state that a running task can be resumed from. It is in the local
// store, not necessarily durable.
type Checkpointed struct {
	ID    RunID
	State cid.Cid // the file that the driver of another peer can restore
}

// Died tells, after a start and before anything else, which tasks were running here when
// this peer last died. It is no attempt, and has them run alone from then on, on every peer
// that knows; but for one that ran alone, whose attempt has failed.
type Died struct{ Tasks []DiedTask }

// DiedTask is a run that no Ended answered.
type DiedTask struct {
	Job   protocol.JobID
	Stage protocol.StageIndex
	Index protocol.TaskIndex
	Alone bool // by Run.Alone
}

// Damaged tells that chunks which this peer keeps for a job turned out to be bad or gone, and
// are not in its store any more.
type Damaged struct{ Job protocol.JobID }

// HandOver names all jobs whose chunks this peer has no room for: it has others keep them in
// its place, goes on keeping each until another has it, and does not keep it again before a
// HandOver without it.
type HandOver struct{ Jobs []protocol.JobID }

// Leaving makes the machine hand back what it holds and take nothing new: meshd is
// going down. Runs are stopped; results that are finished still go to the keepers, and a
// job that only this peer keeps to another.
type Leaving struct {
	ForGood bool // it will not be back soon: it also takes its Keeps back
}

// Tick is the passing of time: due when the instant of Effects.Wake has come.
type Tick struct{}

// Gap is a hole in time (the machine slept, the process was stopped): the machine
// listens to a keeper before it acts again.
type Gap struct{}

func (Submit) input()       {}
func (Announced) input()    {}
func (Received) input()     {}
func (PeerUp) input()       {}
func (PeerDown) input()     {}
func (Probed) input()       {}
func (Ordered) input()      {}
func (Fetched) input()      {}
func (Ended) input()        {}
func (Checkpointed) input() {}
func (Died) input()         {}
func (Damaged) input()      {}
func (HandOver) input()     {}
func (Leaving) input()      {}
func (Tick) input()         {}
func (Gap) input()          {}

// FetchID and RunID name effects so that their ends can be told.
type (
	FetchID uint64
	RunID   uint64
)

// Effects is what the machine owes the world. The driver's duties are in the package
// comment. Slices are the driver's to keep; what they point to is immutable.
type Effects struct {
	Persist  []Entry     // append to the journal, in order
	Blocks   []job.Block // chunks to store
	Sync     bool        // the store must be made durable too: a Send refers to what is in it
	Send     []Envelope
	Announce []Announce
	Run      []Run
	Prefetch []Run // tasks that will be run soon, without ID: their input may be fetched
	Stop     []RunID
	Fetch    []Fetch
	Probe    []protocol.PeerID
	Drop     []Drop           // chunks that are no longer kept for a job
	Changed  []protocol.JobID // whose View changed: wakes those who wait
	Wake     time.Duration    // the Mono at which a Tick is due; 0: none
}

// Empty tells whether there is nothing to do but wait.
func (e *Effects) Empty() bool {
	return len(e.Persist) == 0 && len(e.Blocks) == 0 && !e.Sync && len(e.Send) == 0 && len(e.Announce) == 0 &&
		len(e.Run) == 0 && len(e.Prefetch) == 0 && len(e.Stop) == 0 && len(e.Fetch) == 0 && len(e.Probe) == 0 && len(e.Drop) == 0 && len(e.Changed) == 0
}

// EntryKind says what a journal entry is. The numbers are on disk: never changed.
type EntryKind uint8

const (
	EntryJob    EntryKind = 1 // Data is the signed manifest
	EntryRecord EntryKind = 2 // Data is a record, in its envelope
	EntryFinal  EntryKind = 3 // Data is a final, which stands for all before it
)

// Entry is one thing that the machine must not forget. Given to New, in order, they
// bring back the state.
type Entry struct {
	Kind EntryKind
	Job  protocol.JobID
	Data []byte
}

// Envelope is a message to a peer.
type Envelope struct {
	To      protocol.PeerID
	Message protocol.Message
}

// Announce asks the driver to announce a job: it adds its and the keepers' addresses,
// signs, publishes by gossip, and steps the result back as Announced. A DHT provider
// record for the job's CID goes with it.
type Announce struct {
	Announcement protocol.Announcement // without Raw, Signer and addresses
}

// Run asks for a task to be run. Runs start in the order given as slots come free.
type Run struct {
	ID      RunID
	Job     *job.Signed
	Stage   protocol.StageIndex
	Index   protocol.TaskIndex
	Sources []cid.Cid         // root of the top seal of the stage it reads, for job.SourceOutputs
	From    []protocol.PeerID // who has the chunks, best first
	States  []cid.Cid         // checkpoints to go on from, the newest first, the next where one can't be had or is of no use; then from the start
	Alone   bool              // nothing else is run meanwhile: it may be what killed a peer
}

// Drop says what need not be kept for a job any longer: the file Root, the chunk Groups or,
// where there is neither, everything.
type Drop struct {
	Job    protocol.JobID
	Root   cid.Cid
	Groups protocol.GroupSet // what FetchJob brought for each alone; with group 0 results go too
}

// FetchKind says what a Fetch is to bring into the local store.
type FetchKind uint8

const (
	FetchManifest FetchKind = 1 // the job's manifest, checked
	FetchJob      FetchKind = 2 // the manifest, the input of the groups and, with group 0, programs and files; a group as a whole, or not at all
	FetchPage     FetchKind = 3 // the page Root and every output that it names
	FetchSeal     FetchKind = 4 // the leaf or node Root, its packs and outputs (not its children's)
	LoadPage      FetchKind = 5 // the page Root alone
	FetchOutputs  FetchKind = 6 // the files Roots
)

// Fetch asks for chunks. What it brings is kept for the job until the machine lets the
// job go. It is answered by one Fetched, however long it takes; who serves nothing is
// given up by the driver.
type Fetch struct {
	ID     FetchID
	Kind   FetchKind
	Job    protocol.JobID
	Signed *job.Signed // FetchJob
	Groups protocol.GroupSet
	Kept   bool // FetchJob: this peer has signed for the groups, so none is given back for want of room
	Root   cid.Cid
	Roots  []cid.Cid
	Limit  uint64 // FetchOutputs: bytes at most, or the fetch fails; 0: none but the quota
	From   []protocol.PeerID
}
