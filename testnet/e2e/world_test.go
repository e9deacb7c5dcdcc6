package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/compute-mesh/mesh/node/api"
	"github.com/compute-mesh/mesh/testnet"
)

const (
	// patience bounds every wait; only a fault reaches it. A command may wait longer for a scenario at its full size.
	patience = 3 * time.Minute
	// pollTime is how often a condition is looked at.
	pollTime = 20 * time.Millisecond
	// daemonPID is the file in a daemon's directory that says which process it is.
	daemonPID = "daemon.pid"
	// tailBytes is how much of a peer's log a failed test shows.
	tailBytes = 2 << 10
)

// peer is a meshd and what a user of its machine types.
type peer struct {
	home string
	log  string
}

// result is what a command printed and how it ended.
type result struct {
	typed    string
	out, err string
	status   int
}

// command is a mesh command for this peer.
func (p peer) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "mesh"), args...)
	cmd.Env = append(os.Environ(), "MESH_HOME="+p.home)
	cmd.Dir = filepath.Dir(p.home)
	return cmd
}

// run types a command and waits for its end.
func (p peer) run(t *testing.T, args ...string) result {
	t.Helper()
	return p.runWith(t, nil, args...)
}

// runWith is run with a standard input.
func (p peer) runWith(t *testing.T, in io.Reader, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), size(patience, 10*patience)) // a cleanup types commands, too
	defer cancel()
	cmd := p.command(ctx, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &out, &errs
	err := cmd.Run()
	r := result{typed: "mesh " + strings.Join(args, " "), out: out.String(), err: errs.String(), status: cmd.ProcessState.ExitCode()}
	if ctx.Err() != nil {
		t.Fatalf("no end of %s\nprinted %q\n%s", r.typed, r.out, r.err)
	}
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", r.typed, err)
	}
	return r
}

// ok types a command that should work, and gives what it prints.
func (p peer) ok(t *testing.T, args ...string) string {
	t.Helper()
	return p.run(t, args...).want(t, 0).out
}

// object types a command with --json and decodes what it prints.
func (p peer) object(t *testing.T, into any, args ...string) {
	t.Helper()
	out := p.ok(t, append([]string{"--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		t.Fatalf("mesh --json %s: %v in %q", strings.Join(args, " "), err, out)
	}
}

// want fails the test unless the command ended with a status, and said all of some words
// on standard error.
func (r result) want(t *testing.T, status int, said ...string) result {
	t.Helper()
	if r.status != status {
		t.Fatalf("%s: status %d, want %d\nprinted %.500q\n%s", r.typed, r.status, status, r.out, r.err)
	}
	for _, s := range said {
		if !strings.Contains(r.err, s) {
			t.Errorf("%s: %q is not in\n%s", r.typed, s, r.err)
		}
	}
	return r
}

// submit submits without waiting and gives the job's ID.
func (p peer) submit(t *testing.T, args ...string) string {
	t.Helper()
	return strings.TrimSpace(p.ok(t, append([]string{"submit", "--detach"}, args...)...))
}

// status asks for a job.
func (p peer) status(t *testing.T, job string) (s api.Status) {
	t.Helper()
	p.object(t, &s, "status", job)
	return s
}

// self asks for the peer.
func (p peer) self(t *testing.T) (s api.Self) {
	t.Helper()
	p.object(t, &s, "status")
	return s
}

// wait waits until a job is done.
func (p peer) wait(t *testing.T, job string) {
	t.Helper()
	if out := p.ok(t, "wait", job); out != job+" done\n" {
		t.Fatalf("mesh wait %s printed %q", job, out)
	}
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(pollTime)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// mesh is a testnet.
type mesh struct {
	dir   string
	peers []peer
}

func peerOf(p testnet.Peer) peer { return peer{home: p.Home, log: p.Log} }

// up starts a testnet of its own for a test.
func up(t *testing.T, peers int) *mesh {
	t.Helper()
	m := &mesh{dir: filepath.Join(t.TempDir(), "net")}
	t.Cleanup(func() { m.typed(t, "down").want(t, 0) })
	var s testnet.Status
	if err := json.Unmarshal([]byte(m.typed(t, "up", "--json", "--peers", strconv.Itoa(peers)).want(t, 0).out), &s); err != nil {
		t.Fatal(err)
	}
	for _, p := range s.Peers {
		m.peers = append(m.peers, peerOf(p))
	}
	m.tellLogs(t)
	return m
}

// typed runs a `mesh testnet` command on the testnet. It works in a cleanup too.
func (m *mesh) typed(t *testing.T, args ...string) result {
	t.Helper()
	args = append(append([]string{"testnet"}, args...), "--dir", m.dir)
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "mesh"), args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return result{"mesh " + strings.Join(args, " "), out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// add starts another peer with `mesh testnet add`.
func (m *mesh) add(t *testing.T) peer {
	t.Helper()
	var got struct{ Peers []testnet.Peer }
	if err := json.Unmarshal([]byte(m.typed(t, "add", "--json").want(t, 0).out), &got); err != nil || len(got.Peers) != 1 {
		t.Fatalf("added %+v, %v", got, err)
	}
	p := peerOf(got.Peers[0])
	m.peers = append(m.peers, p)
	return p
}

// tellLogs shows the ends of the peers' logs where the test has failed by its end.
func (m *mesh) tellLogs(t *testing.T) {
	t.Cleanup(func() {
		if t.Failed() {
			for _, p := range m.peers {
				t.Logf("%s:\n%s", p.log, p.tail())
			}
		}
	})
}

// tail is the end of the peer's log.
func (p peer) tail() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	var log []byte
	for line := range bytes.Lines(text) {
		if !introduction.Match(line) {
			log = append(log, line...)
		}
	}
	return string(log[max(0, len(log)-tailBytes):])
}

// introduction is what a meshd prints of itself at its start, which tells nothing here.
var introduction = regexp.MustCompile(`^(peer|home|web|runs|submit|join) {2,}`)

// said tells whether the peer's log has a text.
func (p peer) said(text string) bool {
	log, _ := os.ReadFile(p.log)
	return bytes.Contains(log, []byte(text))
}

// daemon is a meshd that the test itself has started, with flags that a testnet does not
// give.
type daemon struct {
	peer
	cmd  *exec.Cmd
	gone chan struct{}
}

// start starts a meshd with a home in dir, and waits until it answers.
func start(t *testing.T, dir string, flags ...string) *daemon {
	t.Helper()
	return startProgram(t, filepath.Join(bin, "meshd"), dir, flags...)
}

func startProgram(t *testing.T, meshd, dir string, flags ...string) *daemon {
	t.Helper()
	d := launch(t, meshd, dir, flags...)
	(&mesh{peers: []peer{d.peer}}).tellLogs(t)
	ended := false
	eventually(t, "meshd answers", func() bool {
		select {
		case <-d.gone:
			ended = true
		default:
		}
		return ended || d.run(t, "status").status == 0
	})
	if ended {
		t.Fatalf("meshd ended: %s", d.tail())
	}
	return d
}

// launch starts a meshd that may end at once.
func launch(t *testing.T, meshd, dir string, flags ...string) *daemon {
	t.Helper()
	d := &daemon{peer: peer{home: filepath.Join(dir, "home"), log: filepath.Join(dir, "meshd.log")}, gone: make(chan struct{})}
	log, err := os.OpenFile(d.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	d.cmd = exec.Command(meshd, append([]string{"--home", d.home, "--testnet", "--http", "off"}, flags...)...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.kill(t) })
	if err := os.WriteFile(filepath.Join(dir, daemonPID), []byte(strconv.Itoa(d.cmd.Process.Pid)), 0o600); err != nil {
		t.Fatal(err)
	}
	go func() {
		d.cmd.Wait()
		close(d.gone)
	}()
	return d
}

// kill ends the daemon as a crash would, and waits until its task processes have ended.
func (d *daemon) kill(t *testing.T) {
	t.Helper()
	d.cmd.Process.Kill()
	<-d.gone
	eventually(t, "the task processes end with their meshd", func() bool { return len(taskProcesses(t, d.cmd.Process.Pid)) == 0 })
}

// stop ends the daemon as its user would.
func (d *daemon) stop(t *testing.T) {
	t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-d.gone:
	case <-time.After(patience):
		t.Fatal("meshd does not end")
	}
}

// address is where the peer is reached.
func (p peer) address(t *testing.T) string {
	t.Helper()
	var id api.ID
	p.object(t, &id, "id")
	if len(id.Addrs) == 0 {
		t.Fatal("the peer has no address")
	}
	return id.Addrs[0]
}

// shared is the testnet that tests share which harm nothing.
var shared struct {
	once sync.Once
	*mesh
	err string
}

// sharedPeers is its size.
const sharedPeers = 5

// network gives the shared testnet; it is taken down when all tests have ended.
func network(t *testing.T) *mesh {
	t.Helper()
	shared.once.Do(func() {
		dir, err := os.MkdirTemp("", "shared")
		if err != nil {
			shared.err = err.Error()
			return
		}
		m := &mesh{dir: filepath.Join(dir, "net")}
		r := m.typed(t, "up", "--json", "--peers", strconv.Itoa(sharedPeers))
		var s testnet.Status
		if err := json.Unmarshal([]byte(r.out), &s); r.status != 0 || err != nil {
			shared.err = fmt.Sprintf("%s: %d %v %s", r.typed, r.status, err, r.err)
			return
		}
		for _, p := range s.Peers {
			m.peers = append(m.peers, peerOf(p))
		}
		shared.mesh = m
	})
	if shared.err != "" {
		t.Fatal(shared.err)
	}
	shared.tellLogs(t)
	return shared.mesh
}

// program is the path of an example program, contract the one that tries everything.
func program(name string) string { return absolute("../../examples/" + name + "/" + name + ".wasm") }

var contract = absolute("../../sandbox/testdata/contract/contract.wasm")

func absolute(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		panic(err)
	}
	return abs
}

// write makes a file with its directories, and gives its path.
func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// read is the text of a file.
func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
