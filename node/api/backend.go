package api

import (
	"context"
	"io"
)

// Backend is what the handler needs of a running peer. Every method may be called by
// many goroutines at once and returns soon after its context ends. Errors are *Error
// where their kind matters to the user; any other is reported as internal.
type Backend interface {
	Importer
	Submitter
	Jobs
	Outcomes
	Content
	Network
	Daemon
}

// Importer takes bytes of the user's into the chunk store.
type Importer interface {
	// Import reads src to its end and stores it as it comes, in constant memory. What it
	// stored stays for at least HoldTime, or until a submit that names it. On an error,
	// src's included, nothing of it stays.
	Import(ctx context.Context, o ImportOptions, src Source) (Imported, error)
}

// Source is files, one after another.
type Source interface {
	// Next goes to the next item, skipping what is left of the one before; io.EOF after
	// the last. Reads then give the item's bytes up to io.EOF.
	Next() (Item, error)
	io.Reader
}

// Submitter starts jobs.
type Submitter interface {
	// Submit checks the request, signs the manifest and starts the job. It returns when
	// this peer has the job on its disk; keepers are asked meanwhile.
	Submit(ctx context.Context, r SubmitRequest) (Submitted, error)
	// Accepted waits until the job is accepted, or until it is clear that fewer peers
	// than wanted are there to keep it, and says how many do.
	Accepted(ctx context.Context, job string) (Acceptance, error)
}

// Jobs shows and steers jobs.
type Jobs interface {
	// Jobs lists the jobs that this peer knows, newest first.
	Jobs(ctx context.Context) ([]Summary, error)
	// Status tells how a job is, asking the mesh where this peer does not know it.
	Status(ctx context.Context, job string) (Status, error)
	// Watch calls f with the status now, after changes (at most WatchRate times a second),
	// and at once with the last one when the job has ended; then it returns nil. It returns
	// f's error if there is one.
	Watch(ctx context.Context, job string, f func(Status) error) error
	// Control gives an owner's order and returns when it is durable here.
	Control(ctx context.Context, job string, verb Verb) (Summary, error)
	// Stopped tells who has stopped running a cancelled job; it waits for all, at most StopWait.
	Stopped(ctx context.Context, job string) (Stopped, error)
	// Why explains a job that does not get on.
	Why(ctx context.Context, job string) (Why, error)
}

// Outcomes gives what tasks wrote.
type Outcomes interface {
	// Results hands the outputs of a job's last stage to sink, in task order; a task's
	// standard output comes before its files, which come in byte order of their names.
	// Of a job that has not ended it fails at once with KindUnfinished, and of one that
	// failed or was cancelled with KindFailed, unless the options say otherwise.
	Results(ctx context.Context, job string, o ResultsOptions, sink ResultsSink) (ResultsSummary, error)
	// Logs calls f with what tasks wrote to standard error, in task order; with Follow it
	// goes on until the job has ended.
	Logs(ctx context.Context, job string, o LogsOptions, f func(LogEntry) error) error
}

// ResultsSink takes results.
type ResultsSink interface {
	// Begin is called once, before any output.
	Begin(ResultsInfo) error
	// Output takes one output; r gives exactly o.Bytes bytes.
	Output(o Output, r io.Reader) error
}

// Content is what a peer stores.
type Content interface {
	// Cat writes the file with this root, fetching what is not here.
	Cat(ctx context.Context, cid string, w io.Writer) error
	// Pin keeps a file until Unpin; it fetches it first.
	Pin(ctx context.Context, cid string) error
	Unpin(ctx context.Context, cid string) error
	Store(ctx context.Context) (Store, error)
	// GC drops what nothing holds, at once.
	GC(ctx context.Context) (GC, error)
}

// Network is the peer's place in the mesh.
type Network interface {
	ID(ctx context.Context) (ID, error)
	// Connect joins the peer at a multiaddress that ends in /p2p/ and its ID.
	Connect(ctx context.Context, addr string) (Peer, error)
	Peers(ctx context.Context) ([]Peer, error)
	// Refuse makes these the peers that this one keeps apart from, in place of those
	// before: connections to them are closed, and none is made or taken. Only a peer of a
	// testnet does that; any other fails with KindForbidden.
	Refuse(ctx context.Context, peers []string) error
	// Doctor checks what often goes wrong, worst first.
	Doctor(ctx context.Context) ([]Check, error)
}

// Daemon is the process itself.
type Daemon interface {
	Self(ctx context.Context) (Self, error)
	Version(ctx context.Context) (Version, error)
	// Drain stops taking work and hands ranges back; it returns when that is done, and
	// the daemon then ends.
	Drain(ctx context.Context) (Drained, error)
}
