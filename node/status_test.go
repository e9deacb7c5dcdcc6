package node

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/node/api"
	"github.com/compute-mesh/mesh/protocol"
)

// Every byte that a status shows came over the network: the submitter's own input is none, and what all got is what all
// gave.
func TestStatusCountsBytesThatMoved(t *testing.T) {
	nodes := startMesh(t, 3, nil)
	var lines strings.Builder // no two pieces are equal: one chunk would be both
	for i := range 40_000 {
		fmt.Fprintf(&lines, "line %d of a text to be moved\n", i)
	}
	text := lines.String()
	in, err := nodes[0].Import(t.Context(), api.ImportOptions{Form: api.FormInput, Split: "lines:100000"}, &items{names: []string{"text"}, texts: []string{text}})
	if err != nil {
		t.Fatal(err)
	}
	id := nodes[0].submit(api.SubmitRequest{Map: nodes[0].contract("cat"), Index: in.Index, Replicas: ptr(2)})
	nodes[0].await(id)
	work := func(n *testNode) (list []api.PeerWork) {
		s, err := n.Status(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return s.Peers
	}
	sum := func(n *testNode) (in, out uint64) {
		for _, w := range work(n) {
			in, out = in+w.BytesIn, out+w.BytesOut
		}
		return in, out
	}
	eventually(t, "both keepers have the input", func() bool { in, _ := sum(nodes[0]); return in >= 2*uint64(len(text)) })
	for _, n := range nodes {
		if in, out := sum(n); in != out {
			t.Errorf("at %s: %d bytes in, %d out", n.Peer(), in, out)
		}
	}
	for _, w := range work(nodes[0]) {
		exchanged := uint64(0)
		for _, n := range nodes {
			if n.Peer().String() == w.Peer {
				exchanged = uint64(n.exchange.Stats().Total.BytesIn)
			}
		}
		if w.BytesIn > exchanged {
			t.Errorf("%s: %d bytes for the job, %d in all", w.Peer, w.BytesIn, exchanged)
		}
		if own := w.Peer == nodes[0].Peer().String(); own && w.BytesIn >= uint64(len(text)) {
			t.Errorf("the submitter's peer got %d bytes: its own input counts", w.BytesIn)
		}
	}
}

// A peer that lies about others fills no screen.
func TestTallyIsBounded(t *testing.T) {
	key := func(i int) protocol.PeerID { return protocol.PeerID(fmt.Sprintf("\x00\x24\x08\x01\x12\x20%032d", i)) }
	lies := &report{Fetched: []transfer{{"", 5}, {"\x1b[2J", 7}, {key(1).String(), 11}}}
	for i := range 2 * maxWork {
		lies.Shares = append(lies.Shares, shareReport{key(i).String(), 1}, shareReport{"nobody", 1})
	}
	var s api.Status
	tally(&s, map[protocol.PeerID]*report{key(0): lies})
	if len(s.Peers) != maxWork {
		t.Errorf("%d peers, want %d", len(s.Peers), maxWork)
	}
	in, out := uint64(0), uint64(0)
	for _, w := range s.Peers {
		in, out = in+w.BytesIn, out+w.BytesOut
		if decodePeer(w.Peer) == "" {
			t.Fatalf("a peer %q", w.Peer)
		}
	}
	if in != 23 || out != 11 {
		t.Errorf("%d bytes in, %d out", in, out)
	}
}

// How far running tasks are is the mean of those that say so, and never more than what runs.
func TestWhatAPeerSaysOfItsRunningTasks(t *testing.T) {
	for name, test := range map[string]struct {
		report    report
		compiling uint64
		progress  float64 // below 0: none
	}{
		"silent":    {report{Running: []running{{0, 1}}}, 0, -1},
		"compiling": {report{Running: []running{{0, 1}, {0, 2}}, Compiling: 2}, 2, -1},
		"halves":    {report{Running: []running{{0, 1}, {0, 2}, {0, 3}}, Permille: []int{250, 750}}, 0, 0.5},
		"lies":      {report{Running: []running{{0, 1}}, Compiling: 7, Permille: []int{9000, 1, 2}}, 1, 1},
		"negative":  {report{Running: []running{{0, 1}}, Compiling: -7, Permille: []int{-5}}, 0, 0},
	} {
		var w api.PeerWork
		test.report.doing(&w)
		progress := -1.0
		if w.Progress != nil {
			progress = *w.Progress
		}
		if w.Running != uint64(len(test.report.Running)) || w.Compiling != test.compiling || progress != test.progress {
			t.Errorf("%s: %+v, progress %g", name, w, progress)
		}
	}
}

// What runs at peers that beat to other keepers counts too, a task and its copy once.
func TestTallyOfRunningTasks(t *testing.T) {
	status := func() *api.Status {
		c := api.Counts{Tasks: 10, Done: 3, Running: 1, Pending: 6}
		return &api.Status{Summary: api.Summary{Counts: c}, Stages: []api.Stage{{Name: "map", Counts: c}}}
	}
	s := status()
	tally(s, map[protocol.PeerID]*report{
		"a": {Running: []running{{0, 4}, {0, 5}}}, "b": {Running: []running{{0, 5}, {0, 6}, {9, 1}}},
	})
	if want := (api.Counts{Tasks: 10, Done: 3, Running: 3, Pending: 4}); s.Counts != want || s.Stages[0].Counts != want {
		t.Errorf("%+v, stage %+v", s.Counts, s.Stages[0].Counts)
	}
	lies := &report{}
	for i := range uint64(100) {
		lies.Running = append(lies.Running, running{0, i})
	}
	s = status()
	tally(s, map[protocol.PeerID]*report{"a": lies})
	if want := (api.Counts{Tasks: 10, Done: 3, Running: 7}); s.Counts != want {
		t.Errorf("more than there are: %+v", s.Counts)
	}
	s = status()
	if tally(s, nil); s.Counts != status().Counts {
		t.Errorf("nobody answers: %+v", s.Counts)
	}
}

func TestMovedIsBounded(t *testing.T) {
	var m moved
	for i := range maxMoved + 1 {
		m.add(protocol.JobID(fmt.Sprint("job", i)), "a", 1)
	}
	if len(m.jobs) > maxMoved {
		t.Errorf("%d jobs", len(m.jobs))
	}
	for i := range 2 * maxGivers {
		m.add("job", protocol.PeerID(fmt.Sprint("peer", i)), 2)
	}
	list, total := m.of("job"), uint64(0)
	for _, t := range list {
		total += t.Bytes
	}
	if len(list) > maxGivers+1 || total != 4*maxGivers {
		t.Errorf("%d givers of %d bytes", len(list), total)
	}
}

// A rate is of the last 30 s, or of the last results where those are fewer than eight: it neither jumps with each
// result nor falls to nothing between two of them.
func TestRate(t *testing.T) {
	start := time.Now()
	look := func(every, lasts time.Duration, until time.Duration) (low, high float64) {
		r := &rates{jobs: make(map[protocol.JobID][]sample)}
		low = 1e9
		for at := time.Duration(0); at <= until; at += 250 * time.Millisecond {
			done := uint64(min(at, lasts) / every)
			rate := r.rate("job", done, at, start.Add(at))
			if at > until/2 {
				low, high = min(low, rate), max(high, rate)
			}
			if n := len(r.jobs["job"]); n > maxSamples {
				t.Fatalf("%d samples", n)
			}
		}
		return low, high
	}
	for _, every := range []time.Duration{5 * time.Millisecond, time.Second, time.Minute, time.Hour} {
		low, high := look(every, time.Duration(1<<62), max(40*every, time.Minute))
		if want := 1 / every.Seconds(); low < 0.7*want || high > 1.4*want {
			t.Errorf("a result in %v: %g to %g a second, want %g", every, low, high, want)
		}
	}
	// One that stands still gets slower, not faster.
	if low, _ := look(time.Second, 20*time.Second, 10*time.Minute); low <= 0 || low > 0.05 {
		t.Errorf("of a job that stands still: %g", low)
	}
}

func TestNoTimeOfTheEndBeyondTheExpiry(t *testing.T) {
	b := newBackend(nil)
	now := time.Now()
	s := api.Status{Summary: api.Summary{State: api.StateRunning, Counts: api.Counts{Tasks: 1000, Done: 1}}, Expires: now.Add(24 * time.Hour)}
	if b.addRate(&s, "a", time.Hour, now); s.Rate == 0 || s.ETA != nil {
		t.Errorf("a job that takes 41 days: %g tasks/s, ETA %v", s.Rate, s.ETA)
	}
	s.Tasks = 10
	if b.addRate(&s, "a", time.Hour, now); s.ETA == nil || *s.ETA < 3600 {
		t.Errorf("a job that takes hours: ETA %v", s.ETA)
	}
	s.State, s.Rate, s.ETA = api.StateStalled, 0, nil
	if b.addRate(&s, "a", time.Hour, now); s.Rate != 0 || s.ETA != nil {
		t.Errorf("a stalled job: %g tasks/s, ETA %v", s.Rate, s.ETA)
	}
}

func TestReasonNamesTheTaskOnce(t *testing.T) {
	m := &job.Manifest{Retries: 2, Stages: []job.Stage{{Name: "map"}, {Name: "reduce"}}}
	exit := uint8(protocol.ReasonExit)
	v := &view{report: report{State: uint8(protocol.JobFailed), Reason: "stage 0 task 7: exit status 1: exit status 1", Failures: []failure{
		{Task: 3, Attempt: 2, Peer: "a", Reason: exit, Exit: 9, Detail: "not for good"},
		{Task: 7, Attempt: 1, Peer: "a", Reason: exit, Exit: 1, Detail: "one"},
		{Task: 7, Attempt: 2, Peer: "b", Reason: exit, Exit: 1, Detail: "exit status 1"},
	}}}
	if got := v.why(m); got != "map/7: exit status 1" {
		t.Errorf("failed: %q", got)
	}
	v.Failures = nil
	if got := v.why(m); got != v.Reason {
		t.Errorf("without failures: %q", got)
	}
	v.State, v.Reason = uint8(protocol.JobRunning), "stalled: no peer can run it"
	if got := v.why(m); got != "no peer can run it" {
		t.Errorf("stalled: %q", got)
	}
}

func TestDoctorSeesAnotherMesh(t *testing.T) {
	other := startNode(t, testConfig(t, t.TempDir()))
	cfg := testConfig(t, filepath.Join(t.TempDir(), "home"))
	cfg.Mesh, cfg.Bootstrap = "elsewhere", []string{other.Addrs()[0].String()}
	n := startNode(t, cfg)
	eventually(t, "the doctor names the other mesh", func() bool {
		checks, err := n.Doctor(t.Context())
		return err == nil && slices.ContainsFunc(checks, func(c api.Check) bool {
			return c.Name == "bootstrap" && c.Level == api.LevelError && strings.Contains(c.Detail, "of the mesh test, this one is of elsewhere")
		})
	})
}
