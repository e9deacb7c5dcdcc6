package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// items is a Source of named contents.
type items struct {
	left []Item
	data map[string]string
	r    io.Reader
}

func itemsOf(pairs ...string) *items {
	s := &items{data: map[string]string{}}
	for i := 0; i < len(pairs); i += 2 {
		s.left = append(s.left, Item{Name: pairs[i], Size: int64(len(pairs[i+1]))})
		s.data[pairs[i]] = pairs[i+1]
	}
	return s
}

func (s *items) Next() (Item, error) {
	if len(s.left) == 0 {
		return Item{}, io.EOF
	}
	i := s.left[0]
	s.left = s.left[1:]
	s.r = strings.NewReader(s.data[i.Name])
	return i, nil
}

func (s *items) Read(p []byte) (int, error) { return s.r.Read(p) }

func TestAJobFromImportToResults(t *testing.T) {
	m := newMemory()
	c := serve(t, m)
	ctx := context.Background()
	prog, err := c.Import(ctx, ImportOptions{Form: FormProgram}, itemsOf("p.wasm", "\x00asm"))
	if err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("0123456789", 300_000)
	odd := "a/\n\x1b[31m -rf \"q\".txt"
	in, err := c.Import(ctx, ImportOptions{Form: FormInput, Split: "file"}, itemsOf(odd, big, "empty", "", "z", "last"))
	if err != nil {
		t.Fatal(err)
	}
	if in.Pieces != 3 || in.Bytes != uint64(len(big)+4) {
		t.Errorf("imported %+v", in)
	}
	sub, err := c.Submit(ctx, SubmitRequest{Name: "n", Map: Program{Name: "p.wasm", Root: prog.Root}, Index: in.Index})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Results(ctx, sub.Job, ResultsOptions{}); KindOf(err) != KindUnfinished {
		t.Errorf("results of a running job: %v", err)
	}
	acc, err := c.Accepted(ctx, sub.Job)
	if err != nil || !acc.Accepted || acc.Keepers != 3 {
		t.Errorf("accepted: %+v, %v", acc, err)
	}
	var seen []State
	err = c.Watch(ctx, sub.Job, func(s Status) error {
		if seen = append(seen, s.State); len(seen) == 1 {
			m.end(sub.Job, StateDone)
		}
		return nil
	})
	if err != nil || len(seen) != 2 || seen[1] != StateDone {
		t.Errorf("watched %v, %v", seen, err)
	}
	res, err := c.Results(ctx, sub.Job, ResultsOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Close()
	want := []struct{ name, data string }{{odd, big}, {"empty", ""}, {"z", "last"}}
	for i, w := range want {
		o, err := res.Next()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res)
		if err != nil || o.Task != uint64(i) || o.Input != w.name || string(b) != w.data {
			t.Errorf("output %d: %+v, %d bytes, %v", i, o, len(b), err)
		}
	}
	if _, err := res.Next(); err != io.EOF {
		t.Errorf("after the last output: %v", err)
	}
	if s, err := res.Summary(); err != nil || s.Outputs != 3 {
		t.Errorf("summary %+v, %v", s, err)
	}
	list, err := c.Jobs(ctx)
	if err != nil || len(list.Jobs) != 1 || list.Jobs[0].Job != sub.Job {
		t.Errorf("list %+v, %v", list, err)
	}
}

func TestErrorsKeepTheirKind(t *testing.T) {
	m := newMemory()
	half := m.put([]byte("half of it"))
	c := serve(t, m)
	ctx := context.Background()
	task := uint64(1)
	for name, test := range map[string]struct {
		call func() error
		kind Kind
		text string
	}{
		"status":      {func() error { _, err := c.Status(ctx, "no/such job"); return err }, KindNotFound, "no/such job"},
		"watch":       {func() error { return c.Watch(ctx, "none", nil) }, KindNotFound, "none"},
		"results":     {func() error { _, err := c.Results(ctx, "none", ResultsOptions{}); return err }, KindNotFound, ""},
		"submit":      {func() error { _, err := c.Submit(ctx, SubmitRequest{}); return err }, KindInvalid, "no program"},
		"cat":         {func() error { return c.Cat(ctx, "none", io.Discard) }, KindNotFound, ""},
		"cat, midway": {func() error { return c.Cat(ctx, half, io.Discard) }, KindUnavailable, "no holder"},
		"logs, midway": {func() error {
			return c.Logs(ctx, "j", LogsOptions{Task: &task, Follow: true}, func(LogEntry) error { return nil })
		}, KindUnavailable, "keeper"},
		"version": {func() error {
			_, err := get[struct{}](ctx, c, "GET", "/no/such/call", nil)
			return err
		}, KindUnsupported, "/no/such/call"},
	} {
		err := test.call()
		if KindOf(err) != test.kind || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s: %s: %v", name, KindOf(err), err)
		}
	}
}

// An import that is refused midway must say why, however much its client still sends.
func TestImportRefusedMidway(t *testing.T) {
	m := newMemory()
	m.limit = 100
	c := serve(t, m)
	for range 20 {
		_, err := c.Import(context.Background(), ImportOptions{Form: FormInput}, endless{})
		var e *Error
		if !errors.As(err, &e) || e.Kind != KindQuota || e.Advice != "raise --quota" {
			t.Fatalf("%v", err)
		}
	}
	m.limit = 0
	if _, err := c.Import(context.Background(), ImportOptions{Form: FormInput}, itemsOf("a", "b")); err != nil {
		t.Errorf("the next import: %v", err)
	}
}

type endless struct{}

func (endless) Next() (Item, error)        { return Item{Name: "endless", Size: -1}, nil }
func (endless) Read(p []byte) (int, error) { return len(p), nil }

// An error of the source's own reaches the caller unchanged, and the backend sees a
// broken stream, never a whole one.
func TestImportBrokenOffByItsSource(t *testing.T) {
	c := serve(t, newMemory())
	own := errors.New("changed while being imported")
	for _, after := range []int{0, 10, 10 << 20} {
		_, err := c.Import(context.Background(), ImportOptions{Form: FormInput}, &failing{after: after, err: own})
		if !errors.Is(err, own) {
			t.Errorf("after %d bytes: %v", after, err)
		}
	}
}

type failing struct {
	after int
	err   error
}

func (f *failing) Next() (Item, error) { return Item{Name: "f", Size: 1 << 40}, nil }
func (f *failing) Read(p []byte) (int, error) {
	if f.after <= 0 {
		return 0, f.err
	}
	n := min(len(p), f.after)
	f.after -= n
	return n, nil
}

func TestNoDaemon(t *testing.T) {
	home := t.TempDir()
	c, err := NewClient(home)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Self(context.Background())
	if KindOf(err) != KindUnreachable || !strings.Contains(err.Error(), home) {
		t.Errorf("%s: %v", KindOf(err), err)
	}
}

func TestListenReplacesADeadSocket(t *testing.T) {
	home := t.TempDir()
	path, _, err := SocketPath(home)
	if err != nil {
		t.Fatal(err)
	}
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	c, err := NewClient(home)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Self(context.Background()); KindOf(err) != KindUnreachable {
		t.Errorf("a dead socket: %v", err)
	}
	l, err := Listen(home)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 || st.Mode()&os.ModeSocket == 0 {
		t.Errorf("the socket: %v, %v", st.Mode(), err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("after Close: %v", err)
	}
}

func TestALongHomeHasAShortSocket(t *testing.T) {
	home := t.TempDir() + "/" + strings.Repeat("long", 30)
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := Listen(home)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if !l.Fallback() || len(l.Path()) > maxSocketPath {
		t.Errorf("listens at %s", l.Path())
	}
}

func FuzzStream(f *testing.F) {
	var b bytes.Buffer
	w := newStreamWriter(&b)
	w.header(Item{Name: "a"})
	w.Write([]byte("bytes"))
	w.header(Item{Name: "b"})
	w.end(ResultsSummary{})
	f.Add(b.Bytes())
	f.Add([]byte("h\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Add([]byte("e\x02{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := newStreamReader(bytes.NewReader(data))
		total := 0
		for {
			var i Item
			if err := r.next(&i); err != nil {
				if again := r.next(&i); again != err {
					t.Fatalf("%v, then %v", err, again)
				}
				break
			}
			b, err := io.ReadAll(r)
			if total += len(b); total > len(data) {
				t.Fatal("more came out than went in")
			}
			if err != nil {
				break
			}
		}
	})
}

// A daemon that dies while it answers is told from one that has answered all.
func TestADaemonThatDiesMidway(t *testing.T) {
	for name, call := range map[string]func(*Client, func()) error{
		"watch": func(c *Client, die func()) error {
			return c.Watch(context.Background(), "bafyjob0", func(Status) error { die(); return nil })
		},
		"import": func(c *Client, die func()) error {
			_, err := c.Import(context.Background(), ImportOptions{Form: FormInput}, &deadly{die: die})
			return err
		},
		"drain": func(c *Client, die func()) error {
			time.AfterFunc(time.Millisecond, die)
			_, err := c.Drain(context.Background())
			return err
		},
	} {
		m := newMemory()
		m.jobs["bafyjob0"] = &stored{state: StateRunning, changed: make(chan struct{})}
		home := t.TempDir()
		l, err := Listen(home)
		if err != nil {
			t.Fatal(err)
		}
		srv := NewServer(m, slog.New(slog.DiscardHandler))
		ended := make(chan struct{})
		go func() { srv.Serve(l); close(ended) }()
		c, err := NewClient(home)
		if err != nil {
			t.Fatal(err)
		}
		if err := call(c, func() { srv.Close() }); KindOf(err) != KindUnreachable {
			t.Errorf("%s: %s: %v", name, KindOf(err), err)
		}
		c.Close()
		srv.Close()
		l.Close()
		<-ended
	}
}

// deadly is an endless item in whose middle the daemon dies.
type deadly struct {
	endless
	die   func()
	reads int
}

func (d *deadly) Read(p []byte) (int, error) {
	if d.reads++; d.reads == 100 {
		d.die()
	}
	return len(p), nil
}

// The caller's own end is no fault of the daemon's.
func TestACallThatIsGivenUp(t *testing.T) {
	c := serve(t, newMemory())
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(time.Millisecond, cancel)
	if _, err := c.Drain(ctx); KindOf(err) != KindCanceled {
		t.Errorf("%v", err)
	}
}
