package job

import (
	"time"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// Manifest says what a job is. It is immutable; a Signed one is named by its CID.
type Manifest struct {
	Version   uint64 // ManifestVersion
	Mesh      string // the mesh it is for: a manifest is worth nothing in another
	Nonce     [16]byte
	Name      string // for people; at most 128 bytes
	Owner     protocol.PeerID
	Submitter protocol.PeerID // the peer that holds everything at epoch 0
	Created   time.Time       // whole milliseconds, UTC
	Expires   time.Time
	Retention time.Duration // after the end
	Groups    int           // 1 to protocol.MaxGroups
	Replicas  int           // keepers beside the submitter's peer, 0 to 16
	Priority  int32         // -100 to 100; higher goes first
	Retries   int           // further attempts after the first
	KeepGoing bool
	Files     []File // seen by every task under /in/
	Stages    []Stage
}

// File is a file of the job's, given with --file.
type File struct {
	Name string // relative, slash-separated
	Root cid.Cid
	Size uint64
}

// Stage is tasks 0..Tasks-1 that run one program.
type Stage struct {
	Name             string // "map", "reduce", "reduce-2" ...
	Program          File   // its name is argument 0
	Args             []string
	Env              []string // K=V, in byte order
	Tasks            uint64
	Source           Source
	Limits           Limits
	OkExit           []int32 // exit statuses that are no failure, ascending; empty: only 0
	Nondeterministic bool
}

// SourceKind says where the tasks of a stage get their input.
type SourceKind uint8

const (
	SourceArray   SourceKind = 1 // no input: the index is all they have
	SourceIndex   SourceKind = 2 // entry i of an input index
	SourceOutputs SourceKind = 3 // outputs of an earlier stage, joined in task order
)

// Source is the input of a stage.
type Source struct {
	Kind  SourceKind
	Index cid.Cid             // of the input index, for SourceIndex
	Bytes uint64              // of all pieces, for SourceIndex
	Split string              // the rule the input was cut by, for SourceIndex; empty: it is lines of --args-from
	Stage protocol.StageIndex // that is read, for SourceOutputs
	FanIn uint64              // outputs a task reads, for SourceOutputs; 0: all of them
}

// Limits is what a task gets. A peer that lends less does not run it.
type Limits struct {
	Memory  uint64 // bytes
	Disk    uint64 // bytes in /out/ and /tmp/
	Output  uint64 // bytes of stdout and /out/
	Log     uint64 // bytes of stderr that are kept
	Timeout time.Duration
}

// Signed is a manifest with its owner's signature, as it is stored and sent.
type Signed struct {
	ID       protocol.JobID
	Raw      []byte // the DAG-CBOR block whose CID is ID
	Manifest Manifest
}

// Entry is one line of an input index: what a task of a first stage gets.
type Entry struct {
	Root cid.Cid // the piece; cid.Undef for a line of --args-from
	Size uint64
	Name string // the (first) file that the piece is from, or empty
	Line string // the line of --args-from
}
