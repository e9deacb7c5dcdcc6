package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/compute-mesh/mesh/node/api"
)

// shelf is a peer that keeps what it is given and runs nothing: its jobs end as it was
// told, with the outputs that it was given.
type shelf struct {
	api.Backend // what is not here must not be called
	mu          sync.Mutex
	imports     []shelved
	requests    []api.SubmitRequest
	state       api.State // of every job
	reason      string
	outputs     []output
	info        api.ResultsInfo
	started     time.Time
	hang        bool // jobs do not end
	watching    chan struct{}
}

type shelved struct {
	options api.ImportOptions
	items   []api.Item
	data    []string
}

type output struct {
	api.Output
	data string
}

const (
	jobID  = "bafyreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
	peerID = "12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtf"
)

func (s *shelf) Import(_ context.Context, o api.ImportOptions, src api.Source) (api.Imported, error) {
	in := shelved{options: o}
	var got api.Imported
	for {
		item, err := src.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return got, err
		}
		b, err := io.ReadAll(src)
		if err != nil {
			return got, err
		}
		in.items, in.data = append(in.items, item), append(in.data, string(b))
		cid := fmt.Sprintf("bafk%d", len(b))
		got.Root = cid
		got.Bytes += uint64(len(b))
		got.Files = append(got.Files, api.ImportedFile{CID: cid, Name: item.Name, Bytes: uint64(len(b))})
	}
	got.Index, got.Pieces = "bafyindex", uint64(len(in.items))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.imports = append(s.imports, in)
	return got, nil
}

func (s *shelf) Submit(_ context.Context, r api.SubmitRequest) (api.Submitted, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r)
	return api.Submitted{Job: jobID, Name: r.Name, Tasks: 3, Stages: s.stages(0)}, nil
}

func (s *shelf) stages(done uint64) []api.Stage {
	return []api.Stage{{Name: "map", Counts: api.Counts{Tasks: 3, Done: done, Pending: 3 - done}}}
}

func (s *shelf) Accepted(context.Context, string) (api.Acceptance, error) {
	return api.Acceptance{Job: jobID, Accepted: true, Keepers: 3, Wanted: 3}, nil
}

func (s *shelf) summary() api.Summary {
	sum := api.Summary{
		Job: jobID, State: s.state, Reason: s.reason, Name: "count\x1b[31m", Owner: peerID,
		Created: s.started, Counts: api.Counts{Tasks: 3, Done: 2, Running: 1},
	}
	if s.state.Ended() {
		sum.Ended = s.started.Add(90 * time.Second)
		sum.Done, sum.Running = 3, 0
	}
	return sum
}

func (s *shelf) Jobs(context.Context) ([]api.Summary, error) { return []api.Summary{s.summary()}, nil }

func (s *shelf) Status(_ context.Context, id string) (api.Status, error) {
	if id != jobID {
		return api.Status{}, api.Errorf(api.KindNotFound, "no peer knows the job %s", id).WithAdvice("see `mesh ls`")
	}
	eta := 1.5
	return api.Status{
		Summary: s.summary(), Expires: s.started.Add(24 * time.Hour), Submitter: peerID, Stages: s.stages(3),
		Rate: 12.5, ETA: &eta, Split: s.info.Split, Accepted: true, Keepers: 3, Wanted: 3,
		Peers: []api.PeerWork{{Peer: peerID, Tasks: 2, Running: 1, BytesIn: 3 << 20, BytesOut: 1024}},
	}, nil
}

func (s *shelf) Watch(ctx context.Context, id string, f func(api.Status) error) error {
	st, err := s.Status(ctx, id)
	if err != nil {
		return err
	}
	if s.hang {
		st.State = api.StateRunning
	}
	if st.State == api.StateFailed {
		st.Failures = []api.Failure{{Stage: "map", Task: 1, Attempt: 4, Peer: peerID, Reason: "exit", Exit: 3, Detail: "bad\x1b]0;title"}}
	}
	if err := f(st); err != nil || !s.hang {
		return err
	}
	close(s.watching)
	<-ctx.Done()
	return ctx.Err()
}

func (s *shelf) Results(_ context.Context, id string, o api.ResultsOptions, sink api.ResultsSink) (api.ResultsSummary, error) {
	var sum api.ResultsSummary
	if s.state == api.StateRunning && !o.Partial {
		return sum, api.Errorf(api.KindUnfinished, "job %s is running: 2 of 3 tasks are done", id).WithAdvice("wait with --wait, or take what there is with --partial")
	}
	if err := sink.Begin(s.info); err != nil {
		return sum, err
	}
	for _, out := range s.outputs {
		if out.File != "" {
			sum.Files++
			if !o.Files {
				continue
			}
		} else {
			sum.Outputs++
		}
		out.Bytes = uint64(len(out.data))
		if err := sink.Output(out.Output, strings.NewReader(out.data)); err != nil {
			return sum, err
		}
	}
	return sum, nil
}

func (s *shelf) Control(_ context.Context, _ string, v api.Verb) (api.Summary, error) {
	if v == api.VerbCancel {
		s.state = api.StateCancelled
	}
	return s.summary(), nil
}

func (s *shelf) Stopped(context.Context, string) (api.Stopped, error) {
	return api.Stopped{Job: jobID, Stopped: []string{peerID}, Missing: []string{"12D3KooWAway"}}, nil
}

func (s *shelf) Why(context.Context, string) (api.Why, error) {
	return api.Why{Job: jobID, State: api.StateStalled, Reasons: []string{"no peer can run it"}}, nil
}

func (s *shelf) Logs(_ context.Context, _ string, o api.LogsOptions, f func(api.LogEntry) error) error {
	for i := uint64(0); i < 2; i++ {
		if o.Task != nil && *o.Task != i {
			continue
		}
		if err := f(api.LogEntry{Stage: "map", Task: i, Attempt: 1, Text: fmt.Sprintf("line %d\x1b[2J\n", i)}); err != nil {
			return err
		}
	}
	return nil
}

func (s *shelf) Cat(_ context.Context, cid string, w io.Writer) error {
	_, err := io.WriteString(w, "bytes of "+cid+"\x00\n")
	return err
}

func (s *shelf) ID(context.Context) (api.ID, error) {
	addr := "/ip4/192.0.2.7/tcp/7740/p2p/" + peerID
	return api.ID{Peer: peerID, Mesh: "default", Owner: peerID, Addrs: []string{addr}, Join: "meshd --bootstrap " + addr}, nil
}

func (s *shelf) Connect(_ context.Context, addr string) (api.Peer, error) {
	return api.Peer{Peer: peerID, Addrs: []string{addr}}, nil
}

func (s *shelf) Peers(context.Context) ([]api.Peer, error) {
	return []api.Peer{{Peer: peerID, Addrs: []string{"/ip4/192.0.2.7/tcp/7740"}, RTT: 1.25}}, nil
}

func (s *shelf) Doctor(context.Context) ([]api.Check, error) {
	return []api.Check{
		{Name: "reachable", Level: api.LevelError, Detail: "no peer can dial this one", Advice: "open port 7740"},
		{Name: "disk", Level: api.LevelOK, Detail: "12 GiB free"},
	}, nil
}

func (s *shelf) Self(context.Context) (api.Self, error) {
	return api.Self{
		Peer: peerID, Mesh: "default", Home: "/home/u/.mesh", Socket: "/home/u/.mesh/api.sock", Owner: peerID,
		Dashboard: "http://127.0.0.1:7780", Addrs: []string{"/ip4/192.0.2.7/tcp/7740"}, PID: 42, Uptime: 7200,
		Version: "dev", Engine: "wasmtime", Slots: 2, Running: 1, Memory: 8 << 30, Peers: 4, Jobs: 1, Stored: 1 << 20, Quota: 1 << 30,
	}, nil
}

func (s *shelf) Version(context.Context) (api.Version, error) {
	return api.Version{Version: "dev", Go: "go1", OS: "linux", Arch: "amd64", Engine: "wasmtime"}, nil
}

// newShelf is a shelf whose jobs are done, with three outputs and two files.
func newShelf() *shelf {
	return &shelf{
		state: api.StateDone, started: time.Now().Add(-90 * time.Minute), watching: make(chan struct{}),
		info: api.ResultsInfo{Job: jobID, State: api.StateDone, Stage: "map", Tasks: 3, Split: "lines:8388608", Mapped: true},
		outputs: []output{
			{api.Output{Task: 0, Input: "a/x.txt"}, "zero\n"},
			{api.Output{Task: 0, Input: "a/x.txt", File: "pic.png"}, "PNG"},
			{api.Output{Task: 1, Input: "b.txt"}, ""},
			{api.Output{Task: 1, Input: "b.txt", File: "d/e.bin"}, strings.Repeat("\x00", 100_000)},
			{api.Output{Task: 2, Input: "c"}, "two\x1b\n"},
		},
	}
}

// serve serves a peer on a home of its own until the test ends.
func serve(t *testing.T, b api.Backend) (home string) {
	t.Helper()
	home = t.TempDir()
	l, err := api.Listen(home)
	if err != nil {
		t.Fatal(err)
	}
	srv := api.NewServer(b, slog.New(slog.DiscardHandler))
	ended := make(chan struct{})
	go func() { srv.Serve(l); close(ended) }()
	t.Cleanup(func() { srv.Close(); l.Close(); <-ended })
	return home
}

// ran is what a run of the command gave.
type ran struct {
	out, err string
	status   int
}

func mesh(ctx context.Context, home, stdin string, args ...string) ran {
	var out, errs bytes.Buffer
	c := &cli{in: strings.NewReader(stdin), out: &out, err: &errs}
	status := c.run(ctx, append([]string{"--home", home}, args...))
	return ran{out.String(), errs.String(), status}
}

func (s *shelf) Store(context.Context) (api.Store, error) {
	return api.Store{Chunks: 12, Bytes: 3 << 20, Quota: 1 << 30, Pinned: 1, Free: 5 << 30}, nil
}
func (s *shelf) GC(context.Context) (api.GC, error)         { return api.GC{Chunks: 2, Bytes: 1 << 20}, nil }
func (s *shelf) Pin(context.Context, string) error          { return nil }
func (s *shelf) Unpin(context.Context, string) error        { return nil }
func (s *shelf) Drain(context.Context) (api.Drained, error) { return api.Drained{}, nil }
