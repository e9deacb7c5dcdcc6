package api

import (
	"fmt"
	"time"
)

// WatchRate is the most statuses a second that Watch sends of a job; the last one is
// never held back. It is what a person can follow, and with a full status of about
// 4 KiB a watcher costs under 20 KiB/s.
const WatchRate = 4

// Duration is a span of time that is written as text: "1h30m".
type Duration time.Duration

// MarshalText writes d as time.Duration does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what time.ParseDuration does.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("api: duration: %w", err)
	}
	*d = Duration(v)
	return nil
}

// Program is a stage's program with its arguments, before replacements.
type Program struct {
	Name string   `json:"name"` // its file name: argument 0
	Root string   `json:"root"` // from an import with FormProgram
	Args []string `json:"args,omitempty"`
}

// SubmitRequest is all that makes a job. Exactly one of Array and Index is set. A nil
// pointer or a zero stands for the default.
type SubmitRequest struct {
	Name   string   `json:"name,omitempty"`
	Map    Program  `json:"map"`
	Reduce *Program `json:"reduce,omitempty"`
	FanIn  uint64   `json:"fan_in,omitempty"` // 0: one reducer for all outputs

	Array *uint64 `json:"array,omitempty"` // tasks without input
	Index string  `json:"index,omitempty"` // from an import with FormInput or FormLines
	Split string  `json:"split,omitempty"` // the rule that Index was cut by; empty: lines of a FormLines

	Files []ImportedFile `json:"files,omitempty"` // seen by every task under /in/
	Env   []string       `json:"env,omitempty"`   // K=V

	Retries          *int     `json:"retries,omitempty"`
	Timeout          Duration `json:"timeout,omitempty"`
	Memory           uint64   `json:"memory,omitempty"` // bytes a task
	Replicas         *int     `json:"replicas,omitempty"`
	Keep             Duration `json:"keep,omitempty"` // after the end
	Priority         int32    `json:"priority,omitempty"`
	OkExit           []int32  `json:"ok_exit,omitempty"`
	KeepGoing        bool     `json:"keep_going,omitempty"`
	Nondeterministic bool     `json:"nondeterministic,omitempty"`
}

// Submitted says what a submit made.
type Submitted struct {
	Job    string  `json:"job"`
	Name   string  `json:"name,omitempty"`
	Tasks  uint64  `json:"tasks"` // in all stages
	Stages []Stage `json:"stages"`
	// Warnings are for people: a limit that no peer here lends, for example.
	Warnings []string `json:"warnings,omitempty"`
}

// Acceptance says on how many peers a job and its data are.
type Acceptance struct {
	Job      string `json:"job"`
	Accepted bool   `json:"accepted"` // every chunk group has as many keepers as wanted
	Keepers  int    `json:"keepers"`  // other peers that keep each part of it
	Wanted   int    `json:"wanted"`   // other peers that should: the job's replicas
}

// State is how far a job is.
type State string

const (
	StateRunning   State = "running"
	StateStalled   State = "stalled" // a kind of running; Reason says what it waits for
	StateDone      State = "done"
	StateFailed    State = "failed"
	StateCancelled State = "cancelled"
)

// Ended tells whether the state is one that a job ends in.
func (s State) Ended() bool {
	return s == StateDone || s == StateFailed || s == StateCancelled
}

// Verb is an owner's order.
type Verb string

const (
	VerbCancel Verb = "cancel"
	VerbRemove Verb = "rm"
	VerbPause  Verb = "pause"
	VerbResume Verb = "resume"
	VerbRetry  Verb = "retry"
)

// Counts is tasks by what they are doing.
type Counts struct {
	Tasks   uint64 `json:"tasks"`
	Done    uint64 `json:"done"`
	Running uint64 `json:"running"`
	Pending uint64 `json:"pending"`
	Failed  uint64 `json:"failed"`
}

// Summary is a job in a few words: a line of the list of jobs.
type Summary struct {
	Job     string    `json:"job"`
	State   State     `json:"state"`
	Reason  string    `json:"reason,omitempty"` // why it is stalled or failed, for people
	Name    string    `json:"name,omitempty"`
	Owner   string    `json:"owner"` // peer ID of the owner's key
	Created time.Time `json:"created"`
	Ended   time.Time `json:"ended,omitzero"`
	Counts            // of all stages
}

// Stage is how far a stage is.
type Stage struct {
	Name string `json:"stage"`
	Counts
	Runs  uint64 `json:"runs,omitempty"`  // attempts that were started, as far as known
	Bytes uint64 `json:"bytes,omitempty"` // of its input
}

// Status is all there is to say of a job.
type Status struct {
	Summary
	Expires   time.Time  `json:"expires"`
	Submitter string     `json:"submitter"`
	Stages    []Stage    `json:"stages"`
	Rate      float64    `json:"rate"`                  // tasks a second, lately
	ETA       *float64   `json:"eta_seconds,omitempty"` // nil: unknown
	Split     string     `json:"split,omitempty"`       // the rule that the input was cut by, in its canonical form
	Accepted  bool       `json:"accepted"`
	Keepers   int        `json:"keepers"`                // other peers that keep the part of the job that has the fewest
	Away      int        `json:"keepers_away,omitempty"` // of those the ones that the one asked has no connection to
	Groups    int        `json:"groups,omitempty"`       // parts of a large input, that are with different peers; 0: it is not cut
	Spread    int        `json:"spread,omitempty"`       // peers that keep such parts and nothing else
	Wanted    int        `json:"wanted"`
	Peers     []PeerWork `json:"peers"`
	Failures  []Failure  `json:"failures,omitempty"` // at most MaxFailures, the first ones
}

// MaxFailures is how many failed tasks a status shows: more than a screen of them says
// nothing new.
const MaxFailures = 20

// PeerWork is what one peer did for a job.
type PeerWork struct {
	Peer    string `json:"peer"`
	Tasks   uint64 `json:"tasks"` // results of its that count
	Running uint64 `json:"running"`
	// Compiling is how many of the running wait for their program to be compiled there, which each peer does once.
	Compiling uint64 `json:"compiling,omitempty"`
	// Progress is how far the running tasks are, 0 to 1, the mean of those that say so (mesh.progress); nil: none does.
	Progress *float64 `json:"progress,omitempty"`
	BytesIn  uint64   `json:"bytes_in"`  // of chunks that it got from others for the job, since its start
	BytesOut uint64   `json:"bytes_out"` // of chunks that those who answer got from it for the job
}

// Failure is the last of a task's failed attempts on one peer.
type Failure struct {
	Stage   string `json:"stage"`
	Task    uint64 `json:"task"`
	Attempt uint64 `json:"attempt"` // how often it has failed there; a task's attempts are the sum over its peers
	Peer    string `json:"peer"`
	Reason  string `json:"reason"` // exit, trap, timeout, memory, output, disk, death, suspect, hang
	Exit    int32  `json:"exit,omitempty"`
	Detail  string `json:"detail,omitempty"`
}

// String says what failed and how, for people: "map/0: exit status 1: no such key".
func (f Failure) String() string {
	text := fmt.Sprintf("%s/%d: ", f.Stage, f.Task)
	how := f.Reason
	switch how {
	case ReasonExit:
		how = fmt.Sprintf("exit status %d", f.Exit)
	case ReasonDeath:
		how = "meshd died while it ran alone"
	case ReasonHang:
		how = "passed its time limit after it went on from a checkpoint; it next starts anew"
	case ReasonSuspect:
		how = "meshd died while it and others ran; it next runs alone"
	}
	switch {
	case f.Detail == "" || f.Detail == how:
		return text + how
	case f.Reason == ReasonExit: // the last line that the program wrote
		return text + how + ": " + f.Detail
	default: // which says all that the class does
		return text + f.Detail
	}
}

// Reasons of failures; "trap", "timeout", "memory", "output" and "disk" are the others.
const (
	ReasonExit    = "exit"    // its exit status, which is in Exit
	ReasonDeath   = "death"   // of the meshd that ran it, and nothing else
	ReasonHang    = "hang"    // of a run that went on from a checkpoint and passed its time limit
	ReasonSuspect = "suspect" // of the meshd that ran it and others; it counts nothing
)

// Stopped says who has stopped running a cancelled job. A peer that is missing is off, out of reach, or has yet to hear of the
// cancel: it will, before it goes on.
type Stopped struct {
	Job     string   `json:"job"`
	Stopped []string `json:"stopped"` // peers that have said so
	Missing []string `json:"missing"` // peers with a part in the job that have not
}

// StopWait bounds the wait for peers to say that they have stopped.
const StopWait = 2 * time.Second

// Why explains what a job waits for.
type Why struct {
	Job     string   `json:"job"`
	State   State    `json:"state"`
	Reasons []string `json:"reasons"`
}
