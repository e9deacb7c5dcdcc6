package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compute-mesh/mesh/node/api"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// golden compares what commands print with a file of testdata: for each its arguments,
// what it printed (standard error behind |) and its exit status.
func golden(t *testing.T, name, home, dir string, commands [][]string) {
	t.Helper()
	var b strings.Builder
	for _, args := range commands {
		r := mesh(t.Context(), home, "", args...)
		fmt.Fprintf(&b, "$ mesh %s\n%s", strings.Join(args, " "), r.out)
		for l := range strings.Lines(r.err) {
			b.WriteString("| " + l)
		}
		fmt.Fprintf(&b, "status %d\n\n", r.status)
	}
	got := strings.NewReplacer(home, "HOME", dir+"/", "", dir, "DIR").Replace(b.String())
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("not as in %s (go test ./cmd/mesh -rewrite writes it anew):\n%s", path, difference(string(want), got))
	}
}

// difference is the first lines that differ.
func difference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		var a, b string
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a != b {
			return fmt.Sprintf("line %d\nwant %q\ngot  %q", i+1, a, b)
		}
	}
	return ""
}

func TestHelp(t *testing.T) {
	commands := [][]string{{"--help"}}
	root := (&cli{}).rootCommand()
	for _, cmd := range root.Commands() {
		if !cmd.Hidden {
			commands = append(commands, []string{cmd.Name(), "--help"})
		}
	}
	golden(t, "help.txt", t.TempDir(), t.TempDir(), commands)
}

// What can be seen to be wrong is refused before meshd is asked: none runs here.
func TestUsageErrors(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, size int) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, int64(size)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	p, huge, in := file("p.wasm", 8), file("huge.wasm", 64<<20+1), file("in/a", 3)
	odd := filepath.Dir(file("odd/new\nline", 1))
	two := filepath.Dir(file("two/a", 1))
	with := func(args ...string) []string { return append([]string{"submit", "--map", p}, args...) }
	golden(t, "usage.txt", filepath.Join(dir, "home"), dir, [][]string{
		{"frobnicate"}, {"--frobnicate"}, {"ls", "extra"}, {"status", "a", "b"}, {"wait"}, {"get"}, {"get", "JOB"},
		{"get", "JOB", "-o", "-", "--json"}, {"get", "JOB", "-o", "-", "--output-name", "{index}"}, {"cat"}, {"cat", "CID", "--json"},
		{"connect", "somewhere"}, {"logs", "JOB/map/1/2"}, {"logs", "/1"}, {"testnet", "kill", "x"}, {"testnet", "frobnicate"},
		{"submit"}, {"submit", "--map", ""}, with(), with("stray"), with("--array", "2", "--input", in),
		with("--array", "2", "--args-from", in), with("--array", "-2"), with("--array", "2", "--split", "file"),
		with("--array", "2", "--include", "*"), with("--input", in, "--include", "*"), with("--input", dir, "--include", "[a"),
		with("--input", in, "--split", "csv:8MiB"), with("--input", in, "--split", "lines:none"),
		with("--input", "-", "--input", "-"), with("--input", "-", "--args-from", "-"), with("--array", "1", "--fan-in", "4"),
		with("--array", "1", "--reduce", p, "--fan-in", "1"), with("--array", "1", "--detach", "-o", "x"),
		with("--array", "1", "--json", "-o", "-"), with("--array", "1", "--output-name", "{index}"),
		with("--array", "1", "-o", dir+"/", "--output-name", "{nope}"), with("--array", "1", "-o", dir+"/", "--output-name", "{stem}.png"),
		with("--array", "1", "-o", dir+"/", "--output-name", "../{index}"), with("--array", "1", "-o", in+"/"),
		with("--array", "1", "-o", filepath.Join(dir, "none", "out")), with("--input", filepath.Join(dir, "missing")),
		with("--input", odd), with("--input", two, "--input", filepath.Dir(in), "--split", "file", "-o", dir+"/out"),
		with("--array", "1", "--file", dir), with("--array", "1", "--file", in+":../x"), with("--array", "1", "--file", in, "--file", p+":a"),
		with("--array", "1", "--env", "K"), with("--array", "1", "--env", "MESH_X=1"), with("--array", "1", "--memory", "big"),
		with("--array", "1", "--timeout", "-1s"), with("--array", "1", "--timeout", "soon"), with("--array", "1", "--ok-exit", "0,256"),
		with("--array", "1", "--retries", "-1"), with("--array", "1", "--reduce", "'"),
		{"submit", "--map", "missing.wasm", "--array", "1"}, {"submit", "--map", dir, "--array", "1"}, {"submit", "--map", huge, "--array", "1"},
		{"submit", "--map", "'" + p, "--array", "1"}, {"ls"}, {"ls", "--json"},
	})
}

func TestWhatCommandsPrint(t *testing.T) {
	home := serve(t, newShelf())
	commands := [][]string{
		{"ls"}, {"status", jobID}, {"status", "none"}, {"status"}, {"wait", jobID, jobID}, {"watch", jobID}, {"logs", jobID}, {"logs", jobID + "/1"},
		{"id"}, {"peers"}, {"connect", "/ip4/192.0.2.7/tcp/7740/p2p/" + peerID}, {"doctor"}, {"pause", jobID}, {"resume", jobID}, {"retry", jobID}, {"why", jobID},
		{"cancel", jobID}, {"rm", jobID}, {"store"}, {"gc"}, {"pin", "bafkreia"}, {"unpin", "bafkreia"}, {"drain"},
		{"get", jobID, "-o", "-"},
	}
	golden(t, "text.txt", home, t.TempDir(), commands)
	s := newShelf()
	s.state, s.reason = api.StateStalled, "peer "+peerID+" can't run its tasks: no engine"
	golden(t, "stalled.txt", serve(t, s), t.TempDir(), [][]string{{"ls"}, {"status", jobID}})
}

// The field names that scripts rely on: the first field of a job is "job", IDs are whole.
func TestJSON(t *testing.T) {
	s := newShelf()
	s.started = s.started.Truncate(1)
	home := serve(t, s)
	dir := t.TempDir()
	for _, test := range []struct {
		args   []string
		fields string
	}{
		{[]string{"ls"}, "jobs"},
		{[]string{"status", jobID}, "job state name owner created ended tasks done running pending failed expires submitter stages rate eta_seconds split accepted keepers wanted peers"},
		{[]string{"status"}, "peer mesh owner home socket dashboard addrs pid uptime_seconds version engine slots running memory peers jobs stored quota"},
		{[]string{"id"}, "peer mesh owner addrs join"},
		{[]string{"peers"}, "peers"},
		{[]string{"doctor"}, "checks"},
		{[]string{"connect", "/ip4/192.0.2.7/tcp/7740/p2p/x"}, "peer addrs"},
		{[]string{"get", jobID, "-o", filepath.Join(dir, "out")}, "job path outputs files bytes files_left"},
		{[]string{"submit", "--map", wasm(t), "--array", "3"}, "job tasks stages state"},
		{[]string{"submit", "--map", wasm(t), "--array", "3", "--detach"}, "job tasks stages state accepted keepers wanted"},
		{[]string{"submit", "--map", wasm(t), "--array", "3", "-o", dir + "/"}, "job tasks stages state output"},
		{[]string{"add", wasm(t)}, "cid name bytes"},
		{[]string{"logs", jobID + "/0"}, "stage task attempt text"},
		{[]string{"why", jobID}, "job state reasons"},
		{[]string{"pause", jobID}, "job state name owner created ended tasks done running pending failed"},
		{[]string{"cancel", jobID}, "job state name owner created ended tasks done running pending failed stopped missing"},
		{[]string{"store"}, "chunks bytes quota pinned free"},
		{[]string{"gc"}, "chunks bytes"},
		{[]string{"drain"}, "ranges chunks"},
	} {
		r := mesh(t.Context(), home, "", append(test.args, "--json")...)
		if got := fieldsOf(t, r.out); got != test.fields {
			t.Errorf("%q: fields %q, want %q (%s)", test.args, got, test.fields, r.err)
		}
	}
	r := mesh(t.Context(), home, "", "ls", "--json")
	if want := fmt.Sprintf(`{"jobs":[{"job":%q,"state":`, jobID); !strings.HasPrefix(r.out, want) {
		t.Errorf("%s does not begin with %s", r.out, want)
	}
	r = mesh(t.Context(), t.TempDir(), "", "ls", "--json")
	if !strings.Contains(r.err, `{"error":{"kind":"unreachable"`) || r.status != exitUnreachable {
		t.Errorf("status %d, %s", r.status, r.err)
	}
}

func wasm(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "p.wasm")
	if err := os.WriteFile(path, []byte("\x00asm"), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// fieldsOf lists the fields of an object in their order.
func fieldsOf(t *testing.T, text string) string {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	var names []string
	if _, err := d.Token(); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name.(string))
		var skipped json.RawMessage
		if err := d.Decode(&skipped); err != nil {
			t.Fatal(err)
		}
	}
	return strings.Join(names, " ")
}

func TestExitStatuses(t *testing.T) {
	program := wasm(t)
	for name, test := range map[string]struct {
		state  api.State
		args   []string
		status int
		text   string
	}{
		"done":             {api.StateDone, []string{"submit", "--map", program, "--array", "3"}, exitDone, "mesh get " + jobID + " -o PATH"},
		"failed":           {api.StateFailed, []string{"submit", "--map", program, "--array", "3"}, exitFailed, `map/1: exit status 3: bad\x1b]0;title, on ` + peerID + ` (4 attempts)`},
		"wait for failed":  {api.StateFailed, []string{"wait", jobID}, exitFailed, "failed"},
		"watch cancelled":  {api.StateCancelled, []string{"watch", jobID}, exitFailed, "was cancelled"},
		"get unfinished":   {api.StateRunning, []string{"get", jobID, "-o", "-"}, exitFailed, "2 of 3 tasks"},
		"unknown job":      {api.StateDone, []string{"status", "none"}, exitFailed, "no peer knows the job none"},
		"failed, as JSON":  {api.StateFailed, []string{"submit", "--map", program, "--array", "3", "--json"}, exitFailed, `"kind":"failed"`},
		"detached":         {api.StateRunning, []string{"submit", "--map", program, "--array", "3", "--detach"}, exitDone, "kept by 3 other peers"},
		"partial":          {api.StateRunning, []string{"get", jobID, "-o", "-", "--partial"}, exitDone, "2 files"},
		"doctor has found": {api.StateDone, []string{"doctor"}, exitFailed, "1 check failed"},
	} {
		s := newShelf()
		s.state, s.reason = test.state, "task 1 of stage map failed 4 times"
		r := mesh(t.Context(), serve(t, s), "", test.args...)
		if r.status != test.status || !strings.Contains(r.err, test.text) {
			t.Errorf("%s: status %d, %s", name, r.status, r.err)
		}
		if strings.Contains(r.err, "\x1b") {
			t.Errorf("%s: a control character of a peer reaches the terminal: %q", name, r.err)
		}
	}
}

func TestInterruptStopsWaitingOnly(t *testing.T) {
	for _, args := range [][]string{{"submit", "--map", wasm(t), "--array", "3", "-o", filepath.Join(t.TempDir(), "out")}, {"watch", jobID}, {"wait", jobID}} {
		s := newShelf()
		s.hang = true
		home := serve(t, s)
		ctx, interrupt := context.WithCancel(t.Context())
		go func() { <-s.watching; interrupt() }()
		r := mesh(ctx, home, "", args...)
		if r.status != exitInterrupted || !strings.Contains(r.err, "on") || s.state != api.StateDone {
			t.Errorf("%q: status %d, %s", args, r.status, r.err)
		}
	}
}

func TestJobsComplete(t *testing.T) {
	home := serve(t, newShelf())
	r := mesh(t.Context(), home, "", "__complete", "--home", home, "status", "")
	if !strings.HasPrefix(r.out, jobID+"\t") || strings.Contains(r.out, "\x1b") {
		t.Errorf("%q %q", r.out, r.err)
	}
	r = mesh(t.Context(), home, "", "completion", "bash")
	if r.status != exitDone || !strings.Contains(r.out, "__start_mesh") {
		t.Errorf("status %d", r.status)
	}
}
