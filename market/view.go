package market

import (
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// View is what this peer knows of a job. Of a job that it does not keep, the counts
// are what it happens to have heard.
type View struct {
	Job      *job.Signed
	State    protocol.JobState
	Reason   string // why it failed, or why it does not go on; empty when all is well
	Keeper   bool   // this peer keeps the job: the counts are the ledger's
	Accepted bool   // every chunk group has its replicas: durable without this peer
	Keepers  []protocol.PeerID
	Wanted   int // keepers beside the submitter's peer that the manifest asks for
	Members  int
	Stages   []StageView
	Shares   []Share
	Started  time.Duration // Mono when this peer first knew the job
	Ended    time.Duration // Mono when it saw it end; 0: it has not
}

// StageView counts the tasks of a stage. Done + Running + Failed <= Tasks.
type StageView struct {
	Open    bool // its input is sealed
	Tasks   uint64
	Done    uint64
	Running uint64  // as far as beats tell
	Failed  uint64  // attempts used up
	Held    uint64  // not done, with a holder
	Top     cid.Cid // root of its top seal, once it has one
}

// Share is how many of a job's tasks have their result from a peer.
type Share struct {
	Peer  protocol.PeerID
	Tasks uint64
}
