package main

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// shellLine is a task as a line for a shell.
func shellLine(t task) string {
	if len(t.Argv) == 0 {
		return "true\n"
	}
	var line strings.Builder
	for _, a := range t.Argv {
		line.WriteString(quote(a) + " ")
	}
	if t.In != "" {
		line.WriteString("<" + quote(t.In) + " ")
	}
	line.WriteString(">" + quote(t.Out) + "\n")
	return line.String()
}

func shellLines(tasks []task) *strings.Reader {
	var lines strings.Builder
	for _, t := range tasks {
		lines.WriteString(shellLine(t))
	}
	return strings.NewReader(lines.String())
}

// parallel is GNU parallel: retries and a log of what was done, which it can be started again from.
type parallel struct{ dir string }

func (parallel) name() string             { return "parallel" }
func (parallel) up(context.Context) error { return nil }
func (parallel) down() error              { return nil }
func (parallel) daemons() []int           { return nil }

func (p parallel) do(ctx context.Context, tasks []task) error {
	log := filepath.Join(p.dir, "joblog")
	defer os.Remove(log)
	cmd := exec.CommandContext(ctx, "parallel", "--will-cite", "-j", strconv.Itoa(workers), "--retries", "3", "--joblog", log)
	cmd.Stdin = shellLines(tasks)
	return run(cmd)
}

// daemons are programs of others, started so that they end when bench does, however that ends.
type daemons struct{ all []guarded }

type guarded struct {
	*exec.Cmd
	in io.Closer // the standard input that it lives as long as
}

// guard runs a program until its own standard input ends.
const guard = `"$@" </dev/null & cat >/dev/null; kill $! 2>/dev/null; wait`

func (d *daemons) start(log string, argv ...string) error {
	out, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command("sh", append([]string{"-c", guard, "sh"}, argv...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = filepath.Dir(log), out, out
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	d.all = append(d.all, guarded{cmd, in})
	return nil
}

func (d *daemons) pids() (list []int) {
	for _, c := range d.all {
		list = append(list, c.Process.Pid)
	}
	return list
}

// stop ends them, the last one first.
func (d *daemons) stop() {
	for i := len(d.all) - 1; i >= 0; i-- {
		_ = d.all[i].in.Close()
		_ = d.all[i].Wait() // it was killed: that is no error
	}
	d.all = nil
}

// freePort is a port of the loopback that nobody listens on now.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if closed := l.Close(); err == nil {
		err = closed
	}
	return port, err
}

// until asks ready again until it says yes, at most startWait.
func until(ctx context.Context, what string, ready func() (bool, error)) error {
	ctx, stop := context.WithTimeout(ctx, startWait)
	defer stop()
	for {
		ok, err := ready()
		if ok {
			return nil
		}
		if pause(ctx, 20*time.Millisecond) != nil {
			return fmt.Errorf("%s did not come up: %w", what, err)
		}
	}
}

// gearman is Gearman's job server, four workers that run what they get in a shell, and its command line as the client.
type gearman struct {
	dir, port string
	running   daemons
}

func (g *gearman) name() string   { return "gearman" }
func (g *gearman) daemons() []int { return g.running.pids() }

func (g *gearman) up(ctx context.Context) (err error) {
	if g.port, err = freePort(); err != nil {
		return err
	}
	log := filepath.Join(g.dir, "gearman.log")
	if err := g.running.start(log, "gearmand", "-L", "127.0.0.1", "-p", g.port, "-l", "stderr", "--job-retries=3"); err != nil {
		return err
	}
	if err := until(ctx, "gearmand", func() (bool, error) { _, _, err := g.status(); return err == nil, err }); err != nil {
		return err
	}
	for range workers {
		if err := g.running.start(log, "gearman", "-h", "127.0.0.1", "-p", g.port, "-w", "-f", "run", "sh"); err != nil {
			return err
		}
	}
	return until(ctx, "gearman's workers", func() (bool, error) { _, n, err := g.status(); return n == workers, err })
}

func (g *gearman) down() error {
	g.running.stop()
	return os.RemoveAll(filepath.Join(g.dir, "gearman.log"))
}

// status asks how many jobs wait or run, and how many workers there are.
func (g *gearman) status() (jobs, available int, err error) {
	c, err := net.Dial("tcp", "127.0.0.1:"+g.port)
	if err != nil {
		return 0, 0, err
	}
	defer c.Close()
	if _, err := c.Write([]byte("status\n")); err != nil {
		return 0, 0, err
	}
	for lines := bufio.NewScanner(c); lines.Scan(); {
		if f := strings.Fields(lines.Text()); len(f) == 4 && f[0] == "run" {
			jobs, _ = strconv.Atoi(f[1])
			available, _ = strconv.Atoi(f[3])
		} else if lines.Text() == "." {
			return jobs, available, nil
		}
	}
	return 0, 0, fmt.Errorf("gearmand %s ended in the middle of its status", g.port)
}

// do has one job in the foreground. Of many the client has one out at a time, so they go to the background, where their files
// are the results and an empty queue is the end.
func (g *gearman) do(ctx context.Context, tasks []task) error {
	args := []string{"-h", "127.0.0.1", "-p", g.port, "-f", "run"}
	if len(tasks) > 1 {
		args = append(args, "-n", "-b")
	}
	cmd := exec.CommandContext(ctx, "gearman", args...)
	cmd.Stdin = shellLines(tasks)
	if err := run(cmd); err != nil || len(tasks) == 1 {
		return err
	}
	for {
		jobs, _, err := g.status()
		if err != nil || jobs == 0 {
			return err
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// dask is a Dask scheduler with four workers of one thread, and a client of a few lines.
type dask struct {
	dir, url string
	running  daemons
}

//go:embed daskclient.py
var daskClient string

func (d *dask) name() string   { return "dask" }
func (d *dask) daemons() []int { return d.running.pids() }

func (d *dask) up(ctx context.Context) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	d.url = "tcp://127.0.0.1:" + port
	log := filepath.Join(d.dir, "dask.log")
	if err := d.running.start(log, "dask-scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"); err != nil {
		return err
	}
	for range workers {
		if err := d.running.start(log, "dask-worker", d.url, "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny", "--no-dashboard",
			"--local-directory", filepath.Join(d.dir, "dask")); err != nil {
			return err
		}
	}
	return d.client(ctx, nil, "wait", strconv.Itoa(workers))
}

func (d *dask) down() error {
	d.running.stop()
	_ = os.Remove(filepath.Join(d.dir, "dask.log"))
	return os.RemoveAll(filepath.Join(d.dir, "dask"))
}

func (d *dask) do(ctx context.Context, tasks []task) error { return d.client(ctx, tasks) }

func (d *dask) client(ctx context.Context, tasks []task, args ...string) error {
	var lines strings.Builder
	for _, t := range tasks {
		line, err := json.Marshal(t)
		if err != nil {
			return err
		}
		lines.Write(append(line, '\n'))
	}
	cmd := exec.CommandContext(ctx, daskPython, append([]string{"-c", daskClient, d.url}, args...)...)
	cmd.Stdin, cmd.Dir = strings.NewReader(lines.String()), d.dir // which is searched for modules
	return run(cmd)
}

// daskPython is the interpreter that Debian's python3-distributed is installed for.
const daskPython = "/usr/bin/python3"
