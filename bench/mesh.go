package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
)

// mesh is a testnet of real meshd processes, one slot each, with its defaults.
type mesh struct {
	bin, examples, dir string

	net struct {
		Dir   string
		Peers []struct {
			Home, Dashboard string
			PID             int
		}
	}
}

func (m *mesh) name() string { return "mesh" }

func (m *mesh) up(ctx context.Context) error {
	out, err := m.command(ctx, "testnet", "up", "--json", "--peers", strconv.Itoa(workers), "--slots", "1", "--dir", m.dir).Output()
	if err != nil {
		return failed(err)
	}
	return json.Unmarshal(out, &m.net)
}

func (m *mesh) down() error {
	return run(m.command(context.Background(), "testnet", "down", "--dir", m.dir))
}

func (m *mesh) daemons() []int {
	var pids []int
	for _, p := range m.net.Peers {
		pids = append(pids, p.PID)
	}
	return pids
}

// command is a mesh command that speaks to peer 0.
func (m *mesh) command(ctx context.Context, args ...string) *exec.Cmd {
	return m.commandOf(ctx, 0, args...)
}

func (m *mesh) commandOf(ctx context.Context, peer int, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(m.bin, "mesh"), args...)
	if peer < len(m.net.Peers) {
		cmd.Env = append(os.Environ(), "MESH_HOME="+m.net.Peers[peer].Home)
	}
	return cmd
}

func (m *mesh) program(name string) string { return filepath.Join(m.examples, name, name+".wasm") }

func (m *mesh) noops(ctx context.Context, n int) error {
	return run(m.command(ctx, "submit", "--array", strconv.Itoa(n), "--map", quote(m.program("noop")), "-o", "-"))
}

// indexes runs tasks that print their index.
func (m *mesh) indexes(ctx context.Context, n int) error {
	return run(m.command(ctx, "submit", "--array", strconv.Itoa(n), "--map", quote(m.program("index")), "-o", "-"))
}

func (m *mesh) burn(ctx context.Context, tasks, rounds int, out string) error {
	return run(m.command(ctx, "submit", "--array", strconv.Itoa(tasks),
		"--map", quote(m.program("burn"))+" "+strconv.Itoa(rounds), "-o", out))
}

func (m *mesh) words(ctx context.Context, t text, replicas int, out string) error {
	program := quote(m.program("wordcount"))
	return run(m.command(ctx, "submit", "--input", t.whole, "--split", "lines:8MiB", "--replicas", strconv.Itoa(replicas),
		"--map", program+" count", "--reduce", program+" merge", "--fan-in", "16", "-o", out))
}

// add imports a file at peer 0.
func (m *mesh) add(ctx context.Context, file string) (cid string, err error) {
	out, err := m.command(ctx, "add", file).Output()
	cid, _, _ = strings.Cut(strings.TrimSpace(string(out)), " ")
	return cid, failed(err)
}

// pin has peers fetch and keep a file, at the same time.
func (m *mesh) pin(ctx context.Context, cid string, peers ...int) error {
	all, ctx := errgroup.WithContext(ctx)
	for _, p := range peers {
		all.Go(func() error { return run(m.commandOf(ctx, p, "pin", cid)) })
	}
	return all.Wait()
}

// cat reads a file at peer 1.
func (m *mesh) cat(ctx context.Context, cid string, to io.Writer) error {
	cmd := m.commandOf(ctx, 1, "cat", cid)
	cmd.Stdout = to
	return run(cmd)
}

// sent is how many bytes a peer has sent so far.
func (m *mesh) sent(ctx context.Context, peer int) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.net.Peers[peer].Dashboard+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if n, ok := strings.CutPrefix(lines.Text(), `mesh_network_bytes_total{direction="out"} `); ok {
			return strconv.ParseFloat(n, 64)
		}
	}
	return 0, fmt.Errorf("%s has no mesh_network_bytes_total", req.URL)
}

// sentByAll is how many bytes all peers have sent so far.
func (m *mesh) sentByAll(ctx context.Context) (sum float64, err error) {
	for i := range m.net.Peers {
		n, err := m.sent(ctx, i)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

func (m *mesh) engine(ctx context.Context) (string, error) {
	out, err := m.command(ctx, "status", "--json").Output()
	if err != nil {
		return "", failed(err)
	}
	var status struct{ Engine, Version string }
	err = json.Unmarshal(out, &status)
	return status.Version + " " + status.Engine, err
}

// quote makes a path one word of --map.
func quote(path string) string { return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'" }

// run runs a command; what it printed on standard error is part of the error.
func run(cmd *exec.Cmd) error {
	if cmd.Stderr == nil {
		var said strings.Builder
		cmd.Stderr = &said
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, last(said.String()))
		}
		return nil
	}
	return cmd.Run()
}

// failed adds what a command printed on standard error to the error of its Output.
func failed(err error) error {
	if e, ok := err.(*exec.ExitError); ok {
		return fmt.Errorf("%w: %s", err, last(string(e.Stderr)))
	}
	return err
}

// last is the end of what a command printed.
func last(s string) string {
	s = strings.TrimSpace(s)
	return s[max(0, len(s)-500):]
}
