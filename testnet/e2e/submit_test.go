package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compute-mesh/mesh/node/api"
	"github.com/compute-mesh/mesh/testnet/built"
)

// numbers is the lines lo to hi-1.
func numbers(lo, hi int) string {
	var b strings.Builder
	for i := lo; i < hi; i++ {
		fmt.Fprintln(&b, i)
	}
	return b.String()
}

// Every form of input reaches the tasks whole and in order: cat over it gives it back.
func TestInputsComeBackAsTheyWere(t *testing.T) {
	p, dir := network(t).peers[0], t.TempDir()
	text := numbers(0, 20000)
	file := write(t, filepath.Join(dir, "numbers.txt"), text)
	write(t, filepath.Join(dir, "tree", "b.txt"), "bee\n")
	write(t, filepath.Join(dir, "tree", "a", "z.txt"), "zed\n")
	write(t, filepath.Join(dir, "tree", "a.md"), "markdown\n")
	added, _, _ := strings.Cut(p.ok(t, "add", file), " ")
	cat := []string{"submit", "--map", contract + " cat", "-o", "-"}
	for name, test := range map[string]struct {
		args []string
		in   string
		want string
	}{
		"lines":     {args: []string{"--input", file, "--split", "lines:10KB"}, want: text},
		"bytes":     {args: []string{"--input", file, "--split", "bytes:10KB"}, want: text},
		"none":      {args: []string{"--input", file, "--split", "none"}, want: text},
		"file":      {args: []string{"--input", file, "--split", "file"}, want: text},
		"default":   {args: []string{"--input", file}, want: text},
		"cid":       {args: []string{"--input", added, "--split", "lines:20KB"}, want: text},
		"stdin":     {args: []string{"--input", "-", "--split", "lines:10KB"}, in: text, want: text},
		"directory": {args: []string{"--input", filepath.Join(dir, "tree"), "--split", "file"}, want: "markdown\nzed\nbee\n"},
		"include":   {args: []string{"--input", filepath.Join(dir, "tree"), "--include", "*.txt"}, want: "zed\nbee\n"},
		"two":       {args: []string{"--input", filepath.Join(dir, "tree", "b.txt"), "--input", file}, want: "bee\n" + text},
	} {
		t.Run(name, func(t *testing.T) {
			r := p.runWith(t, strings.NewReader(test.in), append(slices.Clone(cat), test.args...)...).want(t, 0, "done: ")
			if r.out != test.want {
				t.Errorf("%d bytes came back of %d: %.200q", len(r.out), len(test.want), r.out)
			}
		})
	}
}

// How an input is cut is how many tasks there are.
func TestSplitsMakeTasks(t *testing.T) {
	p, dir := network(t).peers[1], t.TempDir()
	file := write(t, filepath.Join(dir, "x.txt"), strings.Repeat("123456789\n", 100))
	long := write(t, filepath.Join(dir, "long.txt"), "short\n"+strings.Repeat("x", 5000)+"\nshort\n")
	for _, test := range []struct {
		name, split string
		tasks       uint64
	}{
		{file, "lines:100", 10}, {file, "bytes:250", 4}, {file, "none", 1}, {file, "file", 1},
		{long, "lines:100", 3}, // a line longer than the piece stays whole
	} {
		var s api.Submitted
		p.object(t, &s, "submit", "--map", contract+" cat", "--input", test.name, "--split", test.split, "-o", filepath.Join(dir, "out")+"/")
		if s.Tasks != test.tasks {
			t.Errorf("%s of %s: %d tasks, want %d", test.split, filepath.Base(test.name), s.Tasks, test.tasks)
		}
	}
}

// A task's arguments and environment are what was typed, with its own numbers and names.
func TestArgumentsAndEnvironment(t *testing.T) {
	p, dir := network(t).peers[0], t.TempDir()
	file := write(t, filepath.Join(dir, "deep name.txt"), "one line\n")
	list := write(t, filepath.Join(dir, "list"), "red 1\ngreen 2\n")
	got := p.ok(t, "submit", "--array", "2", "--env", "COLOUR=deep blue", "-o", "-",
		"--map", contract+` args 'a b' {index}/{count}`, "--", "after", "--x={index}")
	for _, want := range []string{
		"0 contract.wasm\n1 args\n2 a b\n3 0/2\n4 after\n5 --x=0\n", "3 1/2\n4 after\n5 --x=1\n",
		"COLOUR=deep blue\n", "MESH_TASK_INDEX=0\n", "MESH_TASK_INDEX=1\n", "MESH_TASK_COUNT=2\n", "MESH_STAGE=map\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	got = p.ok(t, "submit", "--input", file, "-o", "-", "--map", contract+" args {name} {input}")
	if !strings.Contains(got, "2 deep name.txt\n3 /in/") {
		t.Errorf("name and input: %s", got)
	}
	got = p.ok(t, "submit", "--args-from", list, "-o", "-", "--map", contract+" args {2} {1}")
	if !strings.Contains(got, "2 1\n3 red\n") || !strings.Contains(got, "2 2\n3 green\n") || strings.Index(got, "red") > strings.Index(got, "green") {
		t.Errorf("arguments from a list: %s", got)
	}
	r := p.runWith(t, strings.NewReader("7\n8\n9\n"), "submit", "--args-from", "-", "-o", "-", "--map", program("index")+" {1}").want(t, 0)
	if r.out != "7\n8\n9\n" {
		t.Errorf("arguments from standard input: %q", r.out)
	}
}

// A reducer gets all outputs in task order, in one piece or through a tree.
func TestReduce(t *testing.T) {
	p := network(t).peers[2]
	want := numbers(0, 40)
	for name, extra := range map[string][]string{"one": nil, "tree": {"--fan-in", "3"}} {
		got := p.ok(t, append([]string{"submit", "--array", "40", "--map", program("index"), "--reduce", contract + " cat", "-o", "-"}, extra...)...)
		if got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := p.ok(t, "submit", "--array", "0", "--map", program("index"), "--reduce", contract+" cat", "-o", "-"); got != "" {
		t.Errorf("of nothing: %q", got)
	}
	text := write(t, filepath.Join(t.TempDir(), "text"), strings.Repeat("the cat and the dog\n", 1000))
	got := p.ok(t, "submit", "--input", text, "--split", "lines:2000", "--map", program("wordcount")+" count",
		"--reduce", program("wordcount")+" merge", "--fan-in", "2", "-o", "-")
	if got != "and 1000\ncat 1000\ndog 1000\nthe 2000\n" {
		t.Errorf("word count: %q", got)
	}
}

// Files of the job are in /in/, the task's own piece too; a program in Go reads them.
func TestFiles(t *testing.T) {
	p, dir := network(t).peers[0], t.TempDir()
	if err := built.Commands(dir, []string{"GOOS=wasip1", "GOARCH=wasm"}, "../../examples/hash"); err != nil {
		t.Fatal(err)
	}
	hash := filepath.Join(dir, "hash")
	if err := os.Rename(hash, hash+".wasm"); err != nil {
		t.Fatal(err)
	}
	model := write(t, filepath.Join(dir, "model.bin"), "hello\n")
	const sum = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
	got := p.ok(t, "submit", "--array", "1", "--map", hash+".wasm /in/model.bin /in/deep/other", "--file", model, "--file", model+":deep/other", "-o", "-")
	if want := sum + "  /in/model.bin\n" + sum + "  /in/deep/other\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	sums := filepath.Join(dir, "sums")
	p.ok(t, "submit", "--input", model, "--split", "file", "--map", hash+".wasm {input}", "-o", sums+"/")
	if got := read(t, filepath.Join(sums, "model.bin")); !strings.HasPrefix(got, sum+"  /in/") {
		t.Errorf("%q", got)
	}
}

// Results are written where -o and --output-name say.
func TestWhereResultsGo(t *testing.T) {
	p, dir := network(t).peers[3], t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	index := []string{"submit", "--array", "3", "--map", program("index")}
	to := func(t *testing.T, args ...string) result {
		return p.run(t, append(slices.Clone(index), args...)...).want(t, 0)
	}

	to(t, "-o", at("one"))
	to(t, "-o", at("many")+"/")
	to(t, "-o", at("named"), "--output-name", "sub/{index}.txt")
	for path, want := range map[string]string{"one": "0\n1\n2\n", "many/00001.out": "1\n", "named/sub/00002.txt": "2\n"} {
		if got := read(t, at(path)); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	write(t, at("in/a/x.txt"), "x")
	write(t, at("in/y.txt"), "y")
	p.ok(t, "submit", "--input", at("in"), "--split", "file", "--map", contract+" cat", "-o", at("by-file"))
	p.ok(t, "submit", "--input", at("in"), "--split", "file", "--map", contract+" cat", "-o", at("stems")+"/", "--output-name", "{stem}.up")
	for path, want := range map[string]string{"by-file/a/x.txt": "x", "by-file/y.txt": "y", "stems/x.up": "x", "stems/y.up": "y"} {
		if got := read(t, at(path)); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	outs := []string{"submit", "--array", "1", "--map", contract + " tmp-used"}
	p.run(t, append(slices.Clone(outs), "-o", at("file"))...).want(t, 0, "1 file that tasks wrote to /out/ left out", "mesh get ")
	p.run(t, append(slices.Clone(outs), "-o", at("outs")+"/")...).want(t, 0)
	if got := read(t, at("outs/left")); got != "left\n" {
		t.Errorf("file of /out/: %q", got)
	}
	job := strings.TrimSpace(p.ok(t, index...)) // without -o: its ID
	if got := p.ok(t, "get", job, "-o", "-"); got != "0\n1\n2\n" {
		t.Errorf("mesh get: %q", got)
	}
	if got := p.ok(t, "why", job); got != "done: it waits for nothing\n" {
		t.Errorf("mesh why: %q", got)
	}
}

// What a failed task is, is told: by status, log and exit status, and as --keep-going,
// --ok-exit and --retries want it.
func TestFailedTasks(t *testing.T) {
	p := network(t).peers[0]
	failing := func(t *testing.T, args ...string) result {
		t.Helper()
		return p.run(t, append([]string{"submit", "--retries", "0", "-o", "-"}, args...)...)
	}
	failing(t, "--array", "2", "--map", contract+" exit 7").want(t, 1, "failed", "7", "mesh logs ")
	failing(t, "--array", "2", "--map", contract+" exit 7", "--ok-exit", "0,7").want(t, 0)
	failing(t, "--array", "1", "--map", contract+" trap").want(t, 1, "trap")
	failing(t, "--array", "1", "--map", contract+" overflow").want(t, 1, "stack")
	failing(t, "--array", "1", "--map", contract+" loop", "--timeout", "300ms").want(t, 1, "300ms")
	failing(t, "--array", "1", "--map", contract+" memory", "--memory", "20MiB").want(t, 1, "3")

	list := filepath.Join(t.TempDir(), "list")
	write(t, list, "0\n0\n9\n0\n")
	r := p.run(t, "--json", "submit", "--args-from", list, "--map", contract+" exit {1}", "--retries", "1", "--keep-going").want(t, 1)
	job := jobOf(t, r.out)
	s := p.status(t, job)
	if s.State != api.StateFailed || s.Done != 3 || s.Failed != 1 || len(s.Failures) == 0 {
		t.Fatalf("%+v", s)
	}
	// Each peer counts the attempts that it made. With one retry the second is the last that is begun on purpose; of
	// two peers that took the task at once both count theirs.
	attempts, by := uint64(0), map[string]bool{}
	for _, f := range s.Failures {
		attempts += f.Attempt
		if f.Task != 2 || f.Exit != 9 || f.Reason != "exit" || f.Attempt == 0 || by[f.Peer] {
			t.Errorf("failure: %+v", f)
		}
		by[f.Peer] = true
	}
	if attempts < 2 {
		t.Errorf("the job failed after %d attempts, with one retry: %+v", attempts, s.Failures)
	}
	if got := p.run(t, "get", job, "-o", "-").want(t, 1); !strings.Contains(got.err, "--partial") {
		t.Errorf("get of a failed job: %s", got.err)
	}
	p.run(t, "get", job, "-o", "-", "--partial").want(t, 0, "1 task without result")
	p.run(t, "wait", job).want(t, 1)
}

// Logs have what a task wrote to standard error, with nothing that steers a terminal lost.
func TestLogs(t *testing.T) {
	p := network(t).peers[4]
	r := p.run(t, "--json", "submit", "--array", "2", "--map", contract+" trap", "--retries", "0", "--keep-going").want(t, 1)
	job := jobOf(t, r.out)
	if got := p.ok(t, "logs", job); !strings.Contains(got, "==> map/1 <==\n") || strings.Count(got, "about to trap\n") != 2 {
		t.Errorf("logs: %q", got)
	}
	if got := p.ok(t, "logs", job+"/1"); !strings.HasPrefix(got, "about to trap\n") {
		t.Errorf("log of a task: %q", got)
	}
	p.run(t, "logs", job+"/17").want(t, 1, "17")
}

// Clock and randomness are the same everywhere and every time, unless asked otherwise.
func TestNondeterministic(t *testing.T) {
	m := network(t)
	random := func(p peer, extra ...string) string {
		return p.ok(t, append([]string{"submit", "--array", "4", "--map", contract + " random", "-o", "-"}, extra...)...)
	}
	if a, b := random(m.peers[0]), random(m.peers[1]); a != b {
		t.Error("a deterministic job gave two results")
	}
	if a, b := random(m.peers[0], "--nondeterministic"), random(m.peers[1], "--nondeterministic"); a == b {
		t.Error("a non-deterministic job gave the same random bytes twice")
	}
}

// Binary output is kept as it is.
func TestBinaryOutput(t *testing.T) {
	got := network(t).peers[0].ok(t, "submit", "--array", "1", "--map", contract+" binary", "-o", "-")
	for i := range 256 {
		if len(got) != 256 || got[i] != byte(i) {
			t.Fatalf("%q", got)
		}
	}
}
