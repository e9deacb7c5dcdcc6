package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compute-mesh/mesh/node/api"
)

// interactive is a command that goes on until it is told to end.
type interactive struct {
	cmd  *exec.Cmd
	out  *bufio.Reader
	errs bytes.Buffer
}

// begin starts a command whose output is read while it runs.
func (p peer) begin(t *testing.T, args ...string) *interactive {
	t.Helper()
	i := &interactive{cmd: p.command(context.Background(), args...)}
	pipe, err := i.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	i.cmd.Stderr, i.out = &i.errs, bufio.NewReader(pipe)
	if err := i.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := time.AfterFunc(size(patience, 10*patience), func() { i.cmd.Process.Kill() }) // ends every read, too
	t.Cleanup(func() { stop.Stop(); i.cmd.Process.Kill(); i.cmd.Wait() })
	return i
}

// line is the next line that the command prints.
func (i *interactive) line(t *testing.T) string {
	t.Helper()
	text, err := i.out.ReadString('\n')
	if err != nil {
		t.Fatalf("%s: %v after %q\n%s", strings.Join(i.cmd.Args, " "), err, text, i.errs.String())
	}
	return text
}

// interrupt is a Ctrl-C; it gives the exit status and what was said.
func (i *interactive) interrupt(t *testing.T) (int, string) {
	t.Helper()
	if err := i.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, i.out)
	i.cmd.Wait()
	return i.cmd.ProcessState.ExitCode(), i.errs.String()
}

// endless submits a job that only a cancel ends.
func endless(t *testing.T, p peer) (job string) {
	t.Helper()
	job = p.submit(t, "--array", "1", "--name", "endless", "--map", contract+" log-loop")
	t.Cleanup(func() {
		if s := p.status(t, job); !s.State.Ended() {
			p.run(t, "cancel", job)
		}
	})
	return job
}

// Ctrl-C stops the command, not the job, and the command says so.
func TestInterrupt(t *testing.T) {
	p := network(t).peers[0]
	submit := p.begin(t, "submit", "--array", "1", "--map", contract+" log-loop")
	job := strings.TrimSpace(submit.line(t))
	t.Cleanup(func() { p.run(t, "cancel", job) })
	status, said := submit.interrupt(t)
	if status != 130 || !strings.Contains(said, "goes on") || !strings.Contains(said, job) {
		t.Errorf("submit: status %d: %s", status, said)
	}
	if s := p.status(t, job); s.State != api.StateRunning {
		t.Errorf("after an interrupt the job is %s", s.State)
	}
	logs := p.begin(t, "logs", "-f", job+"/0")
	if got := logs.line(t); got != "looping\n" {
		t.Errorf("log of a running task: %q", got)
	}
	watch := p.begin(t, "--json", "watch", job)
	var first api.Status
	if err := json.Unmarshal([]byte(watch.line(t)), &first); err != nil || first.Job != job {
		t.Errorf("watch: %+v, %v", first, err)
	}
	for name, i := range map[string]*interactive{"logs": logs, "watch": watch} {
		if status, said := i.interrupt(t); status != 130 || !strings.Contains(said, "goes on") {
			t.Errorf("%s: status %d: %s", name, status, said)
		}
	}
}

// Who follows a job is told of its end.
func TestFollowersSeeTheEnd(t *testing.T) {
	m := network(t)
	job := endless(t, m.peers[0])
	logs := m.peers[1].begin(t, "logs", "-f", job)
	if got := logs.line(t) + logs.line(t); got != "==> map/0 <==\nlooping\n" {
		t.Errorf("logs -f on another peer: %q", got)
	}
	watch := m.peers[2].begin(t, "watch", job)
	wait := m.peers[3].begin(t, "wait", job)
	m.peers[0].ok(t, "cancel", job)
	if got := wait.line(t); got != job+" cancelled\n" {
		t.Errorf("wait printed %q", got)
	}
	for name, i := range map[string]*interactive{"logs": logs, "watch": watch, "wait": wait} {
		io.Copy(io.Discard, i.out)
		i.cmd.Wait()
		want := 1
		if name == "logs" {
			want = 0
		}
		if status := i.cmd.ProcessState.ExitCode(); status != want {
			t.Errorf("%s: status %d, want %d: %s", name, status, want, i.errs.String())
		}
	}
	m.peers[0].run(t, "get", job, "-o", "-").want(t, 1, "cancelled")
}

// A detached submit prints the job and on how many peers it is; get says how far it is.
func TestDetach(t *testing.T) {
	p := network(t).peers[1]
	r := p.run(t, "submit", "--detach", "--array", "1", "--map", contract+" loop").want(t, 0,
		"accepted: kept by 3 other peers, this machine may be switched off", "mesh watch", "mesh get")
	job := strings.TrimSpace(r.out)
	defer p.run(t, "cancel", job)
	p.run(t, "get", job, "-o", "-").want(t, 1, "0 of 1", "--wait")
	p.run(t, "submit", "--detach", "-o", "x", "--array", "1", "--map", contract+" loop").want(t, 2, "do not go together")
	var o struct {
		Tasks uint64
		api.Acceptance
	}
	p.object(t, &o, "submit", "--detach", "--array", "2", "--replicas", "2", "--map", program("index"))
	if o.Tasks != 2 || !o.Accepted || o.Keepers < 2 || o.Wanted != 2 {
		t.Errorf("%+v", o)
	}
	p.wait(t, o.Job)
}

// Alone, a peer says that it has to stay on.
func TestDetachAlone(t *testing.T) {
	p := start(t, t.TempDir(), "--slots", "1")
	r := p.run(t, "submit", "--detach", "--array", "1", "--map", program("index")).want(t, 0, "no other peer keeps it", "must stay on")
	p.wait(t, strings.TrimSpace(r.out))
	if got := p.ok(t, "submit", "--array", "2", "--map", program("index"), "-o", "-"); got != "0\n1\n" {
		t.Errorf("a job alone: %q", got)
	}
}

func TestAddAndCat(t *testing.T) {
	m, dir := network(t), t.TempDir()
	big := write(t, filepath.Join(dir, "big"), strings.Repeat("0123456789abcdef", 200_000))
	cid, name, _ := strings.Cut(strings.TrimSpace(m.peers[0].ok(t, "add", big)), " ")
	if name != "big" {
		t.Errorf("add calls it %q", name)
	}
	if got := m.peers[4].ok(t, "cat", cid); got != read(t, big) {
		t.Errorf("%d bytes on another peer", len(got))
	}
	r := m.peers[0].runWith(t, strings.NewReader("standard input"), "add", "-").want(t, 0)
	cid, _, _ = strings.Cut(strings.TrimSpace(r.out), " ")
	if got := m.peers[1].ok(t, "cat", cid); got != "standard input" {
		t.Errorf("%q", got)
	}
}

func TestThePeerDescribesItself(t *testing.T) {
	m := network(t)
	p := m.peers[0]
	var id api.ID
	p.object(t, &id, "id")
	if text := p.ok(t, "id"); !strings.Contains(text, id.Peer) || !strings.Contains(text, "join     meshd --mesh "+id.Mesh+" --bootstrap "+id.Addrs[0]+"\n") {
		t.Errorf("mesh id: %s", text)
	}
	var peers struct{ Peers []api.Peer }
	p.object(t, &peers, "peers")
	if len(peers.Peers) < sharedPeers-1 {
		t.Errorf("peers: %+v", peers)
	}
	for _, q := range m.peers[1:] {
		if other := q.self(t).Peer; !strings.Contains(p.ok(t, "peers"), other) {
			t.Errorf("mesh peers has no %s", other)
		}
	}
	var doctor struct{ Checks []api.Check }
	p.object(t, &doctor, "doctor")
	for _, c := range doctor.Checks {
		if c.Level == api.LevelError {
			t.Errorf("doctor: %+v", c)
		}
	}
	if len(doctor.Checks) == 0 {
		t.Error("the doctor finds nothing at all")
	}
	if text := p.ok(t, "version"); !strings.HasPrefix(text, "mesh ") || !strings.Contains(text, "\nmeshd ") {
		t.Errorf("version: %q", text)
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if text := p.ok(t, "completion", shell); !strings.Contains(text, "mesh") {
			t.Errorf("completion %s: %.100q", shell, text)
		}
	}
	if text := p.ok(t, "status"); !strings.Contains(text, id.Peer) || !strings.Contains(text, "http://127.0.0.1:") {
		t.Errorf("status: %s", text)
	}
}

// A peer that knows nobody joins with mesh connect.
func TestConnect(t *testing.T) {
	m := network(t)
	p := start(t, t.TempDir(), "--slots", "0", "--mesh", m.peers[0].self(t).Mesh)
	if n := p.self(t).Peers; n != 0 {
		t.Fatalf("it knows %d peers", n)
	}
	if got := p.ok(t, "connect", m.peers[0].address(t)); got != "connected to "+m.peers[0].self(t).Peer+"\n" {
		t.Errorf("%q", got)
	}
	eventually(t, "it knows all", func() bool { return p.self(t).Peers >= sharedPeers })
	if got := p.ok(t, "submit", "--array", "2", "--map", program("index"), "-o", "-"); got != "0\n1\n" {
		t.Errorf("%q", got)
	}
	p.run(t, "connect", "nonsense").want(t, 2, "no address of a peer", "mesh id")
	dead := strings.Replace(m.peers[0].address(t), "/p2p/", "/p2p/", 1)
	head, tail, _ := strings.Cut(dead, "/tcp/")
	_, id, _ := strings.Cut(tail, "/p2p/")
	p.run(t, "connect", head+"/tcp/1/p2p/"+id[:len(id)-4]+"aaaa") // no such peer: any clear refusal
	p.run(t, "connect", "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWELUQqPwNRLAdhKMUdr8p7okx62YXGZS9NKH2yL48AoCt").want(t, 1, "refused")
}

// The fields of --json are promises.
func TestFieldNames(t *testing.T) {
	p, dir := network(t).peers[0], t.TempDir()
	r := p.run(t, "--json", "submit", "--array", "2", "--map", program("index"), "-o", filepath.Join(dir, "out")).want(t, 0)
	job := jobOf(t, r.out)
	has := func(what, out string, names ...string) {
		t.Helper()
		var o map[string]json.RawMessage
		if err := json.Unmarshal([]byte(out), &o); err != nil {
			t.Errorf("%s: %v in %q", what, err, out)
		}
		for _, name := range names {
			if _, ok := o[name]; !ok {
				t.Errorf("%s has no field %q: %s", what, name, out)
			}
		}
		if slices.Contains(names, "job") {
			jobOf(t, out)
		}
	}
	has("submit", r.out, "job", "tasks", "stages", "state", "output")
	has("ls", p.ok(t, "--json", "ls"), "jobs")
	has("status JOB", p.ok(t, "--json", "status", job), "job", "state", "stages", "peers", "tasks", "done", "keepers", "owner", "created", "ended")
	has("status", p.ok(t, "--json", "status"), "peer", "mesh", "home", "dashboard", "slots", "quota", "stored")
	has("wait", p.ok(t, "--json", "wait", job), "job", "state")
	has("get", p.ok(t, "--json", "get", job, "-o", filepath.Join(dir, "again")), "job", "path", "outputs", "bytes")
	has("id", p.ok(t, "--json", "id"), "peer", "mesh", "addrs", "join")
	has("peers", p.ok(t, "--json", "peers"), "peers")
	has("doctor", p.ok(t, "--json", "doctor"), "checks")
	has("version", p.ok(t, "--json", "version"), "version", "go", "os", "arch")
	has("add", p.ok(t, "--json", "add", absolute("doc.go")), "cid", "name", "bytes")
	has("an error", p.run(t, "--json", "status", "nonsense").err, "error")
	if p.run(t, "--json", "get", job, "-o", "-").want(t, 2, "standard output").out != "" {
		t.Error("--json with -o - printed something")
	}
}

// What was typed wrong is a usage error; it says what would be right.
func TestUsageErrors(t *testing.T) {
	p := network(t).peers[0]
	for _, test := range []struct {
		typed string
		said  string
	}{
		{"nonsense", "nonsense"},
		{"submit", "--map"},
		{"submit --map x.wasm", "--array"},
		{"submit --nope", "--nope"},
		{"submit --array 2 --input x --map " + contract, "--array"},
		{"submit --array -2 --map " + contract, "-2"},
		{"submit --array 1 --map missing.wasm", "missing.wasm: there is no such file"},
		{"submit --array 1 --map " + contract + " --timeout 0s", "--timeout"},
		{"submit --array 1 --map " + contract + " --memory lots", `"lots"`},
		{"submit --array 1 --map " + contract + " --fan-in 2", "--reduce"},
		{"submit --array 1 --map " + contract + " --env MESH_X=1", "MESH_"},
		{"submit --array 1 --map " + contract + " --ok-exit 256", "256"},
		{"submit --input " + contract + " --split words --map " + contract, "words"},
		{"submit --array 1 --map " + contract + " -o /nowhere/at/all", "/nowhere/at"},
		{"status a b", `"b"`},
		{"get", "JOB"},
		{"get x", "-o"},
		{"wait", "JOB"},
		{"testnet kill x --dir " + t.TempDir(), `"x"`},
	} {
		if r := p.run(t, strings.Fields(test.typed)...); r.status != 2 || !strings.Contains(r.err, test.said) || r.out != "" {
			t.Errorf("mesh %s: status %d, printed %q, said %s", test.typed, r.status, r.out, r.err)
		}
	}
}
