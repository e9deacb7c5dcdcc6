package node

import (
	"cmp"
	"context"
	"os"
	"slices"
	"time"

	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// report is what one peer knows of a job, as it tells others by the query protocol.
type report struct {
	Job      string        `json:"job"`
	Keeper   bool          `json:"keeper"` // the peer keeps the job: the counts are the ledger's
	State    uint8         `json:"state"`  // protocol.JobState
	Reason   string        `json:"reason,omitempty"`
	Accepted bool          `json:"accepted"`
	Keepers  []string      `json:"keepers"`
	Copies   int           `json:"copies"`           // peers beside the submitter's that keep the part of the job that has the fewest
	Near     int           `json:"near"`             // the same of those that the peer has a connection to
	Spread   []string      `json:"spread,omitempty"` // who keeps parts of the input alone
	Wanted   int           `json:"wanted"`
	Members  int           `json:"members"`
	Stages   []stageReport `json:"stages"`
	Shares   []shareReport `json:"shares"`
	Failures []failure     `json:"failures,omitempty"` // at most maxFailures
	Age      int64         `json:"age_ms"`             // since this peer first knew the job
	Ended    int64         `json:"ended,omitempty"`    // Unix ms; 0: it has not
	Stopped  []string      `json:"stopped,omitempty"`  // of a cancelled job those that have said that nothing runs there any more
	Fetched  []transfer    `json:"fetched,omitempty"`  // what the peer itself has fetched for the job, and from whom
	Running  []running     `json:"running,omitempty"`  // tasks that the peer itself runs; at most maxRunning

	Compiling int   `json:"compiling,omitempty"` // of those the ones whose program is being compiled
	Permille  []int `json:"permille,omitempty"`  // how far those are that say so
}

type stageReport struct {
	Open    bool   `json:"open"`
	Tasks   uint64 `json:"tasks"`
	Done    uint64 `json:"done"`
	Running uint64 `json:"running"`
	Failed  uint64 `json:"failed"`
	Held    uint64 `json:"held"`
	Top     string `json:"top,omitempty"` // root of the top seal
}

type shareReport struct {
	Peer  string `json:"peer"`
	Tasks uint64 `json:"tasks"`
}

// failure is the newest failed attempt of a task by one peer.
type failure struct {
	Stage   uint32 `json:"stage"`
	Task    uint64 `json:"task"`
	Attempt uint32 `json:"attempt"`
	Peer    string `json:"peer"`
	Reason  uint8  `json:"reason"` // protocol.Reason
	Exit    int32  `json:"exit,omitempty"`
	Detail  string `json:"detail,omitempty"`
	Log     string `json:"log,omitempty"` // root of the log's file
}

type running struct {
	Stage uint32 `json:"stage"`
	Task  uint64 `json:"task"`
}

const (
	// maxFailures bounds the failures in a report: what a person is shown, and a peer may be of use to.
	maxFailures = 64
	// maxRunning bounds the tasks that a report names.
	maxRunning = 256
)

func newReport(v *market.View, now market.Instant) *report {
	r := &report{
		Job: v.Job.ID.String(), Keeper: v.Keeper, State: uint8(v.State), Reason: v.Reason,
		Accepted: v.Accepted, Copies: v.Copies, Near: v.Near, Wanted: v.Wanted, Members: v.Members, Age: (now.Mono - v.Started).Milliseconds(),
	}
	for _, k := range v.Keepers {
		r.Keepers = append(r.Keepers, k.String())
	}
	for _, k := range v.Spread {
		r.Spread = append(r.Spread, k.String())
	}
	for _, p := range v.Stopped {
		r.Stopped = append(r.Stopped, p.String())
	}
	for _, s := range v.Stages {
		stage := stageReport{Open: s.Open, Tasks: s.Tasks, Done: s.Done, Running: s.Running, Failed: s.Failed, Held: s.Held}
		if s.Top.Defined() {
			stage.Top = s.Top.String()
		}
		r.Stages = append(r.Stages, stage)
	}
	for _, s := range v.Shares {
		r.Shares = append(r.Shares, shareReport{s.Peer.String(), s.Tasks})
	}
	if v.Ended > 0 {
		r.Ended = now.Unix - (now.Mono - v.Ended).Milliseconds()
	}
	return r
}

// ledger adds what only the records tell: failures, and the time of the end, which the last seal has.
func (r *report) ledger(records []protocol.Record) {
	sealed := int64(0)
	for i := range records {
		switch b := records[i].Body.(type) {
		case *protocol.Seal:
			sealed = max(sealed, b.Time)
		case *protocol.Failed:
			f := failure{
				Stage: uint32(b.Stage), Task: uint64(b.Task), Attempt: uint32(b.Attempt), Peer: records[i].Signer.String(),
				Reason: uint8(b.Reason), Exit: b.Exit, Detail: b.Detail,
			}
			if b.Log.Defined() {
				f.Log = b.Log.String()
			}
			r.Failures = append(r.Failures, f)
		}
	}
	slices.SortFunc(r.Failures, func(a, b failure) int {
		return cmp.Or(cmp.Compare(a.Stage, b.Stage), cmp.Compare(a.Task, b.Task), cmp.Compare(a.Attempt, b.Attempt), cmp.Compare(a.Peer, b.Peer))
	})
	r.Failures = r.Failures[:min(len(r.Failures), maxFailures)]
	if r.Ended != 0 && sealed != 0 && protocol.JobState(r.State) == protocol.JobDone {
		r.Ended = sealed
	}
}

// report is what this peer knows of a job; nil: nothing.
func (n *Node) report(ctx context.Context, id protocol.JobID) (*report, error) {
	var r *report
	var records []protocol.Record
	err := n.driver.ask(ctx, func(m machine) {
		v, ok := m.View(id)
		if !ok {
			return
		}
		r = newReport(&v, n.driver.clock.now())
		records = m.Records(id)
	})
	if err != nil || r == nil {
		return nil, err
	}
	r.ledger(records)
	r.Fetched = n.content.moved.of(id)
	for _, t := range n.runner.now(id) {
		if len(r.Running) < maxRunning {
			r.Running = append(r.Running, running{uint32(t.stage), uint64(t.index)})
			if t.compiling {
				r.Compiling++
			}
			if t.permille >= 0 {
				r.Permille = append(r.Permille, t.permille)
			}
		}
	}
	return r, nil
}

// records are the records of a job that this peer has and that say what a result is: Done and Seal.
func (n *Node) resultRecords(ctx context.Context, id protocol.JobID) (list []protocol.Record, err error) {
	err = n.driver.ask(ctx, func(m machine) {
		for _, rec := range m.Records(id) {
			switch rec.Body.(type) {
			case *protocol.Done, *protocol.Seal:
				list = append(list, rec)
			}
		}
	})
	return list, err
}

// pages are the pages that may hold a task's result and log, as far as this peer knows.
func (n *Node) pages(ctx context.Context, id protocol.JobID, stage protocol.StageIndex, task protocol.TaskIndex) (list []cid.Cid, err error) {
	err = n.driver.ask(ctx, func(m machine) { list = slices.Clone(m.Pages(id, stage, task)) })
	return list, err
}

// tail is a part of the log of a task that runs.
type tail struct {
	Running bool   `json:"running"` // the peer runs the task
	Data    []byte `json:"data,omitempty"`
	Since   int64  `json:"since,omitempty"` // Unix ms at its start: another run has another
}

// tailMost bounds the bytes of one tail.
const tailMost = 64 << 10

// tail reads on in the log of a task that this peer runs.
func (n *Node) tail(id protocol.JobID, stage protocol.StageIndex, task protocol.TaskIndex, offset int64) tail {
	for _, t := range n.runner.now(id) {
		if t.stage != stage || t.index != task {
			continue
		}
		out := tail{Running: true, Since: t.since.UnixMilli()}
		f, err := os.Open(t.log)
		if err != nil {
			return out // nothing written yet
		}
		defer f.Close()
		data := make([]byte, tailMost)
		k, _ := f.ReadAt(data, max(offset, 0))
		out.Data = data[:k]
		return out
	}
	return tail{}
}

// view is a job as this peer knows it or could find it.
type view struct {
	report
	peer protocol.PeerID // who says so; empty: this peer itself
}

func (v *view) state() protocol.JobState { return protocol.JobState(v.State) }

func (v *view) ended() bool { return v.state() != protocol.JobRunning }

// done is how many tasks of all stages are done.
func (v *view) done() (sum uint64) {
	for i := range v.Stages {
		sum += v.Stages[i].Done
	}
	return sum
}

func (v *view) endedAt() (t time.Time) {
	if v.Ended > 0 {
		t = time.UnixMilli(v.Ended).UTC()
	}
	return t
}
