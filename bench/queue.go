package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// A system runs the workloads.
type system interface {
	name() string
	up(context.Context) error
	down() error
	daemons() []int // the processes that its own are below
	noops(ctx context.Context, n int) error
	burn(ctx context.Context, tasks, rounds int, out string) error
	words(ctx context.Context, t text, replicas int, out string) error
}

// A task of a queue is a native program, run as a shell would run `argv <in >out`; without argv it is a no-op.
type task struct {
	Argv    []string `json:",omitempty"`
	In, Out string   `json:",omitempty"`
}

// A queue runs tasks, and returns when all have been run. Its workers share a disk, so it ships nothing but the task.
type queue interface {
	name() string
	up(context.Context) error
	down() error
	daemons() []int
	do(context.Context, []task) error
}

// queued makes a system of a queue and the native programs.
type queued struct {
	queue
	native programs
	dir    string // on the disk that the workers share
}

func (q queued) noops(ctx context.Context, n int) error { return q.do(ctx, make([]task, n)) }

func (q queued) burn(ctx context.Context, n, rounds int, out string) error {
	tasks, outs := make([]task, n), make([]string, n)
	for i := range tasks {
		outs[i] = filepath.Join(q.dir, fmt.Sprintf("burn-%d", i))
		tasks[i] = task{Argv: append(q.native.burn[:len(q.native.burn):len(q.native.burn)], strconv.Itoa(rounds)), Out: outs[i]}
	}
	if err := q.do(ctx, tasks); err != nil {
		return err
	}
	return join(outs, out)
}

func (q queued) words(ctx context.Context, t text, _ int, out string) error {
	tasks, outs := make([]task, len(t.pieces)), make([]string, len(t.pieces))
	count := q.native.wordcount
	for i, p := range t.pieces {
		outs[i] = filepath.Join(q.dir, fmt.Sprintf("words-%d", i))
		tasks[i] = task{Argv: append(count[:len(count):len(count)], "count"), In: p, Out: outs[i]}
	}
	if err := q.do(ctx, tasks); err != nil {
		return err
	}
	all := filepath.Join(q.dir, "counts")
	if err := join(outs, all); err != nil {
		return err
	}
	return runTask(ctx, task{Argv: append(count[:len(count):len(count)], "merge"), In: all, Out: out})
}

// runTask runs one task here.
func runTask(ctx context.Context, t task) error {
	if len(t.Argv) == 0 {
		return nil
	}
	cmd := exec.CommandContext(ctx, t.Argv[0], t.Argv[1:]...)
	if t.In != "" {
		f, err := os.Open(t.In)
		if err != nil {
			return err
		}
		defer f.Close()
		cmd.Stdin = f
	}
	if t.Out != "" {
		f, err := os.Create(t.Out)
		if err != nil {
			return err
		}
		defer f.Close()
		cmd.Stdout = f
	}
	return run(cmd)
}

// xargs is what a shell offers: no queue, no retries, and nothing survives it.
type xargs struct{}

func (xargs) name() string             { return "xargs" }
func (xargs) up(context.Context) error { return nil }
func (xargs) down() error              { return nil }
func (xargs) daemons() []int           { return nil }

func (xargs) do(ctx context.Context, tasks []task) error {
	cmd := exec.CommandContext(ctx, "xargs", "-P", strconv.Itoa(workers), "-n", "1", "true")
	if len(tasks) > 0 && len(tasks[0].Argv) > 0 {
		cmd = exec.CommandContext(ctx, "xargs", "-P", strconv.Itoa(workers), "-d", "\n", "-n", "1", "sh", "-c")
	}
	cmd.Stdin = shellLines(tasks)
	return run(cmd)
}
