package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compute-mesh/mesh/node/api"
	"github.com/compute-mesh/mesh/sandbox"
	"go.uber.org/goleak"
)

// The test binary is the sandbox's child, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "sandbox-child" {
		os.Exit(sandbox.ChildMain(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// patience bounds every wait of these tests: it is only reached by a fault.
const patience = 60 * time.Second

// testNode is a peer within this process.
type testNode struct {
	*Node
	*backend
	t *testing.T
}

func testConfig(t *testing.T, home string) Config {
	cfg := DefaultConfig()
	cfg.Home, cfg.Mesh, cfg.TestNet, cfg.Slots, cfg.HTTP = home, "test", true, 1, "127.0.0.1:0"
	cfg.Quota, cfg.Memory = 1<<30, 1<<30
	if os.Getenv("MESH_TEST_LOG") != "" {
		cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}).WithAttrs([]slog.Attr{slog.String("node", filepath.Base(home))}))
	}
	return cfg
}

func startNode(t *testing.T, cfg Config) *testNode {
	t.Helper()
	n, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return &testNode{n, newBackend(n), t}
}

// startMesh starts k peers that join through the first, and waits until each knows all.
func startMesh(t *testing.T, k int, change func(i int, cfg *Config)) []*testNode {
	t.Helper()
	dir := t.TempDir()
	var nodes []*testNode
	for i := range k {
		cfg := testConfig(t, filepath.Join(dir, fmt.Sprintf("peer-%d", i)))
		if i > 0 {
			cfg.Bootstrap = []string{nodes[0].Addrs()[0].String()}
		}
		if change != nil {
			change(i, &cfg)
		}
		nodes = append(nodes, startNode(t, cfg))
	}
	for _, n := range nodes {
		eventually(t, "every peer knows every other", func() bool { return n.net.Stats().Peers == k-1 })
	}
	return nodes
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	patient := time.After(patience)
	for !holds() {
		select {
		case <-look.C:
		case <-patient:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// items is a Source of files in memory.
type items struct {
	names []string
	texts []string
	r     io.Reader
}

func (s *items) Next() (api.Item, error) {
	if len(s.names) == 0 {
		return api.Item{}, io.EOF
	}
	item := api.Item{Name: s.names[0], Size: int64(len(s.texts[0]))}
	s.r = strings.NewReader(s.texts[0])
	s.names, s.texts = s.names[1:], s.texts[1:]
	return item, nil
}

func (s *items) Read(p []byte) (int, error) { return s.r.Read(p) }

func (n *testNode) program(name string) api.Program {
	n.t.Helper()
	wasm, err := os.ReadFile(filepath.Join("..", "examples", name, name+".wasm"))
	if err != nil {
		n.t.Fatal(err)
	}
	got, err := n.Import(n.t.Context(), api.ImportOptions{Form: api.FormProgram}, &items{names: []string{name + ".wasm"}, texts: []string{string(wasm)}})
	if err != nil {
		n.t.Fatal(err)
	}
	return api.Program{Name: name + ".wasm", Root: got.Root}
}

func (n *testNode) submit(r api.SubmitRequest) string {
	n.t.Helper()
	got, err := n.Submit(n.t.Context(), r)
	if err != nil {
		n.t.Fatal(err)
	}
	return got.Job
}

func (n *testNode) await(job string) api.Status {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	var last api.Status
	if err := n.Watch(ctx, job, func(s api.Status) error { last = s; return nil }); err != nil {
		why, _ := n.Why(n.t.Context(), job)
		n.t.Fatalf("job %s: %v; %+v; %q", job, err, last, why.Reasons)
	}
	return last
}

// collected is a sink that keeps what it gets.
type collected struct {
	info    api.ResultsInfo
	outputs []api.Output
	texts   [][]byte
}

func (c *collected) Begin(i api.ResultsInfo) error { c.info = i; return nil }

func (c *collected) Output(o api.Output, r io.Reader) error {
	data, err := io.ReadAll(r)
	if err == nil && uint64(len(data)) != o.Bytes {
		err = fmt.Errorf("%d bytes, %d announced", len(data), o.Bytes)
	}
	c.outputs, c.texts = append(c.outputs, o), append(c.texts, data)
	return err
}

func (n *testNode) results(job string, o api.ResultsOptions) (*collected, api.ResultsSummary) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	c := &collected{}
	sum, err := n.Results(ctx, job, o, c)
	if err != nil {
		n.t.Fatalf("results of %s: %v", job, err)
	}
	return c, sum
}

func ptr[T any](v T) *T { return &v }

func TestOnePeerRunsAJob(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("mesh", func(t *testing.T) {
		n := startNode(t, testConfig(t, t.TempDir()))
		job := n.submit(api.SubmitRequest{Map: n.program("noop"), Array: ptr(uint64(20)), Replicas: ptr(0)})
		s := n.await(job)
		if s.State != api.StateDone || s.Done != 20 {
			t.Fatalf("%+v", s)
		}
		c, sum := n.results(job, api.ResultsOptions{})
		if sum.Outputs != 20 || len(c.outputs) != 20 {
			t.Fatalf("%+v", sum)
		}
		checkMetrics(t, n)
	})
}

// checkMetrics reads /metrics as Prometheus and as a foreign page would.
func checkMetrics(t *testing.T, n *testNode) {
	res, err := http.Get(n.Dashboard() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("metrics: %s %v: %s", res.Status, err, text)
	}
	for _, want := range []string{
		`mesh_tasks_total{outcome="done"} 20`, `mesh_tasks_total{outcome="failed"} 0`, "mesh_peers 0", "mesh_jobs 1",
		`mesh_chunk_bytes_total{direction="in"}`, "mesh_store_bytes ", "mesh_journal_commits_total ", `mesh_swarm_messages_total{event="dropped"} 0`,
	} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("metrics lack %q", want)
		}
	}
	req, _ := http.NewRequest(http.MethodGet, n.Dashboard()+"/metrics", nil)
	req.Host = "evil.example"
	if res, err = http.DefaultClient.Do(req); err != nil || res.StatusCode != http.StatusForbidden {
		t.Errorf("a foreign host: %v %v", res.Status, err)
	}
	_ = res.Body.Close()
	http.DefaultClient.CloseIdleConnections()
}

// text is some words, and how often each is in it.
func text() (files map[string]string, counts map[string]int) {
	words := strings.Fields("the quick brown fox jumps over the lazy dog and the cat")
	files, counts = make(map[string]string), make(map[string]int)
	for f := range 4 {
		var b strings.Builder
		for i := range 2000 {
			w := words[(i*i+f)%len(words)]
			counts[w]++
			fmt.Fprintf(&b, "%s ", w)
			if i%9 == 0 {
				b.WriteByte('\n')
			}
		}
		b.WriteByte('\n')
		files[fmt.Sprintf("d/file-%d.txt", f)] = b.String()
	}
	return files, counts
}

func (n *testNode) wordcount(files map[string]string) string {
	n.t.Helper()
	src := &items{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		src.names, src.texts = append(src.names, name), append(src.texts, files[name])
	}
	in, err := n.Import(n.t.Context(), api.ImportOptions{Form: api.FormInput, Split: "lines:2000"}, src)
	if err != nil {
		n.t.Fatal(err)
	}
	program := n.program("wordcount")
	program.Args = []string{"count"}
	reduce := program
	reduce.Args = []string{"merge"}
	return n.submit(api.SubmitRequest{Map: program, Reduce: &reduce, FanIn: 4, Index: in.Index, Split: "lines:2KB", Replicas: ptr(2)})
}

func TestMeshCountsWords(t *testing.T) {
	nodes := startMesh(t, 4, func(i int, cfg *Config) {
		if i == 3 {
			cfg.Slots = 0
		}
	})
	files, want := text()
	job := nodes[0].wordcount(files)
	s := nodes[0].await(job)
	if s.State != api.StateDone {
		t.Fatalf("%+v", s)
	}
	first, _ := nodes[0].results(job, api.ResultsOptions{})
	got := make(map[string]int)
	for _, line := range strings.Split(strings.TrimSpace(string(first.texts[0])), "\n") {
		var w string
		var k int
		if _, err := fmt.Sscanf(strings.ReplaceAll(line, "\t", " "), "%s %d", &w, &k); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		got[w] = k
	}
	if !maps.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	// From a peer that neither submitted nor ran anything.
	other, _ := nodes[3].results(job, api.ResultsOptions{Wait: true})
	if !slices.EqualFunc(first.texts, other.texts, bytes.Equal) {
		t.Error("another peer gives other results")
	}
	if st, err := nodes[3].Status(t.Context(), job); err != nil || st.State != api.StateDone {
		t.Errorf("status elsewhere: %+v, %v", st, err)
	} else if rule := "lines:2000"; st.Split != rule || other.info.Split != rule || other.info.Mapped {
		t.Errorf("elsewhere the split is %q, of results %+v", st.Split, other.info)
	}
}

func TestRestartKeepsAJob(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	n := startNode(t, cfg)
	job := n.submit(api.SubmitRequest{Map: n.program("noop"), Array: ptr(uint64(5)), Replicas: ptr(0)})
	n.await(job)
	if err := n.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := startNode(t, cfg)
	if s := again.await(job); s.State != api.StateDone {
		t.Fatalf("%+v", s)
	}
	if _, sum := again.results(job, api.ResultsOptions{}); sum.Outputs != 5 {
		t.Fatalf("%+v", sum)
	}
}

func TestSecondPeerOnAHomeIsRefused(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	startNode(t, cfg)
	if _, err := New(t.Context(), cfg); !errors.Is(err, ErrHomeInUse) {
		t.Fatalf("got %v", err)
	}
}
