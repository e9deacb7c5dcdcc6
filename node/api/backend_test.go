package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// memory is a Backend that keeps what it is given and runs nothing: a job's outputs are
// its pieces, one line of input each.
type memory struct {
	mu      sync.Mutex
	blobs   map[string][]byte
	indexes map[string][]string
	names   map[string]string // of the piece's file
	jobs    map[string]*stored
	limit   int64 // bytes an import may have; 0: any number
}

type stored struct {
	request SubmitRequest
	state   State
	changed chan struct{}
}

var _ Backend = (*memory)(nil)

func newMemory() *memory {
	return &memory{
		blobs: map[string][]byte{}, indexes: map[string][]string{},
		names: map[string]string{}, jobs: map[string]*stored{},
	}
}

func (m *memory) put(b []byte) string {
	sum := sha256.Sum256(b)
	id := "bafy" + hex.EncodeToString(sum[:8])
	m.mu.Lock()
	defer m.mu.Unlock()
	m.blobs[id] = b
	return id
}

func (m *memory) Import(_ context.Context, o ImportOptions, src Source) (Imported, error) {
	var got Imported
	var roots []string
	for {
		item, err := src.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return Imported{}, err
		}
		var r io.Reader = src
		if m.limit > 0 {
			r = io.LimitReader(src, m.limit+1)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			return Imported{}, err
		}
		if m.limit > 0 && int64(len(b)) > m.limit {
			return Imported{}, Errorf(KindQuota, "the store is full").WithAdvice("raise --quota")
		}
		id := item.CID
		if id == "" {
			id = m.put(b)
		}
		m.names[id] = item.Name
		got.Bytes += uint64(len(b))
		got.Root = id
		got.Files = append(got.Files, ImportedFile{CID: id, Name: item.Name, Bytes: uint64(len(b))})
		roots = append(roots, id)
	}
	if o.Form == FormInput {
		got.Index = "index" + strings.Join(roots, "+")
		m.indexes[got.Index] = roots
		got.Files, got.Root = nil, ""
	}
	got.Pieces = uint64(len(roots))
	return got, nil
}

func (m *memory) Submit(_ context.Context, r SubmitRequest) (Submitted, error) {
	if r.Map.Root == "" {
		return Submitted{}, Errorf(KindInvalid, "no program")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	id := fmt.Sprintf("bafyjob%d", len(m.jobs))
	m.jobs[id] = &stored{request: r, state: StateRunning, changed: make(chan struct{})}
	n := uint64(len(m.indexes[r.Index]))
	return Submitted{Job: id, Name: r.Name, Tasks: n, Stages: []Stage{{Name: "map", Counts: Counts{Tasks: n}}}}, nil
}

func (m *memory) job(id string) (*stored, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	j, ok := m.jobs[id]
	if !ok {
		return nil, Errorf(KindNotFound, "no peer knows the job %s", id)
	}
	return j, nil
}

func (m *memory) end(id string, s State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.jobs[id].state = s
	close(m.jobs[id].changed)
}

func (m *memory) Accepted(_ context.Context, id string) (Acceptance, error) {
	_, err := m.job(id)
	return Acceptance{Job: id, Accepted: true, Keepers: 3, Wanted: 3}, err
}

func (m *memory) Jobs(context.Context) ([]Summary, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []Summary
	for id, j := range m.jobs {
		all = append(all, Summary{Job: id, State: j.state})
	}
	return all, nil
}

func (m *memory) Status(_ context.Context, id string) (Status, error) {
	j, err := m.job(id)
	if err != nil {
		return Status{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return Status{Summary: Summary{Job: id, State: j.state, Name: j.request.Name}}, nil
}

func (m *memory) Watch(ctx context.Context, id string, f func(Status) error) error {
	j, err := m.job(id)
	if err != nil {
		return err
	}
	for {
		s, _ := m.Status(ctx, id)
		if err := f(s); err != nil || s.State.Ended() {
			return err
		}
		select {
		case <-j.changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (m *memory) Control(ctx context.Context, id string, v Verb) (Summary, error) {
	if _, err := m.job(id); err != nil {
		return Summary{}, err
	}
	if v != VerbCancel {
		return Summary{}, Errorf(KindUnsupported, "%s comes later", v)
	}
	m.end(id, StateCancelled)
	return Summary{Job: id, State: StateCancelled}, nil
}

func (m *memory) Stopped(_ context.Context, id string) (Stopped, error) {
	return Stopped{Job: id, Stopped: []string{"a"}, Missing: []string{"b"}}, nil
}

func (m *memory) Why(_ context.Context, id string) (Why, error) {
	return Why{Job: id, State: StateStalled, Reasons: []string{"no peer can run it"}}, nil
}

func (m *memory) Results(_ context.Context, id string, o ResultsOptions, sink ResultsSink) (ResultsSummary, error) {
	var sum ResultsSummary
	j, err := m.job(id)
	if err != nil {
		return sum, err
	}
	if j.state == StateRunning && !o.Partial {
		return sum, Errorf(KindUnfinished, "job %s is running", id)
	}
	roots := m.indexes[j.request.Index]
	if err := sink.Begin(ResultsInfo{Job: id, State: j.state, Stage: "map", Tasks: uint64(len(roots)), Mapped: true}); err != nil {
		return sum, err
	}
	for i, root := range roots {
		b, ok := m.blobs[root]
		if !ok {
			return sum, Errorf(KindUnavailable, "chunk %s has no holder", root)
		}
		out := Output{Task: uint64(i), Input: m.names[root], Bytes: uint64(len(b))}
		if err := sink.Output(out, bytes.NewReader(b)); err != nil {
			return sum, err
		}
		sum.Outputs++
		sum.Bytes += out.Bytes
	}
	return sum, nil
}

func (m *memory) Logs(_ context.Context, id string, o LogsOptions, f func(LogEntry) error) error {
	for i := uint64(0); i < 3; i++ {
		if o.Task != nil && *o.Task != i {
			continue
		}
		if err := f(LogEntry{Stage: "map", Task: i, Text: fmt.Sprintf("log %d\n", i)}); err != nil {
			return err
		}
	}
	if o.Follow {
		return Errorf(KindUnavailable, "the keeper is gone")
	}
	return nil
}

func (m *memory) Cat(_ context.Context, id string, w io.Writer) error {
	b, ok := m.blobs[id]
	if !ok {
		return Errorf(KindNotFound, "no peer has %s", id)
	}
	if _, err := w.Write(b); err != nil {
		return err
	}
	if bytes.HasPrefix(b, []byte("half")) {
		return Errorf(KindUnavailable, "the rest of %s has no holder", id)
	}
	return nil
}

func (m *memory) Pin(ctx context.Context, id string) error   { return m.Cat(ctx, id, io.Discard) }
func (m *memory) Unpin(ctx context.Context, id string) error { return m.Cat(ctx, id, io.Discard) }
func (m *memory) Store(context.Context) (Store, error) {
	return Store{Chunks: uint64(len(m.blobs))}, nil
}
func (m *memory) GC(context.Context) (GC, error) { return GC{Chunks: 1}, nil }
func (m *memory) ID(context.Context) (ID, error) { return ID{Peer: "12D3"}, nil }
func (m *memory) Connect(_ context.Context, addr string) (Peer, error) {
	return Peer{Peer: "12D3", Addrs: []string{addr}}, nil
}
func (m *memory) Refuse(context.Context, []string) error {
	return Errorf(KindForbidden, "this is no peer of a testnet")
}
func (m *memory) Peers(context.Context) ([]Peer, error)    { return nil, nil }
func (m *memory) Doctor(context.Context) ([]Check, error)  { return []Check{{Name: "disk"}}, nil }
func (m *memory) Self(context.Context) (Self, error)       { return Self{Peer: "12D3"}, nil }
func (m *memory) Version(context.Context) (Version, error) { return Version{Version: "1"}, nil }
func (m *memory) Drain(ctx context.Context) (Drained, error) {
	<-ctx.Done()
	return Drained{}, ctx.Err()
}

// serve serves b on a home of its own until the test ends.
func serve(t *testing.T, b Backend) *Client {
	t.Helper()
	home := t.TempDir()
	l, err := Listen(home)
	if err != nil {
		t.Fatal(err)
	}
	srv := NewServer(b, slog.New(slog.NewTextHandler(io.Discard, nil)))
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	c, err := NewClient(home)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		srv.Close()
		l.Close()
		select {
		case err := <-ended:
			if err != http.ErrServerClosed {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the server did not end")
		}
	})
	return c
}
