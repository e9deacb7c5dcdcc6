package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/compute-mesh/mesh/sandbox"
	"golang.org/x/sync/errgroup"
)

// local runs WebAssembly programs as a peer does, in processes of the same meshd, without a mesh: what is left of a
// figure is what the mesh costs.
type local struct{ pool *sandbox.Pool }

// localName is its column.
const localName = "local"

// newLocal has as many processes as there are cores.
func (b *bench) newLocal() (*local, error) {
	cfg := sandbox.DefaultConfig()
	cfg.Dir, cfg.Slots, cfg.Child = filepath.Join(b.dir, "local"), b.cores, []string{filepath.Join(b.bin, "meshd"), "sandbox-child"}
	pool, err := sandbox.New(cfg)
	return &local{pool}, err
}

func (l *local) close() error { return l.pool.Close() }

// run runs a program and gives what it printed and the CPU time that it took.
func (l *local) run(ctx context.Context, wasm string, args ...string) (out []byte, cpu float64, err error) {
	return l.task(ctx, sandbox.Task{Args: append([]string{filepath.Base(wasm)}, args...)}, wasm)
}

// task runs a program under limits that it does not meet.
func (l *local) task(ctx context.Context, t sandbox.Task, wasm string) (out []byte, cpu float64, err error) {
	t.Program, t.Deterministic = sandbox.ProgramRef{ID: filepath.Base(wasm), Path: wasm}, true
	t.Limits = sandbox.Limits{Memory: 256 << 20, Disk: 1 << 30, Output: 1 << 30, Log: 1 << 20, Timeout: time.Hour}
	r, err := l.pool.Run(ctx, t)
	if err != nil {
		return nil, 0, err
	}
	defer r.Close()
	if r.Class != sandbox.ClassDone {
		return nil, 0, fmt.Errorf("%s: %v: %s", wasm, r.Class, r.Reason)
	}
	src, err := r.Stdout.Open()
	if err != nil {
		return nil, 0, err
	}
	defer src.Close()
	out, err = io.ReadAll(src)
	return out, r.CPU.Seconds(), err
}

// localBurn is the burn tasks in as many processes as there are cores: the makespan that is compared with the mesh's.
func (b *bench) localBurn(ctx context.Context) (err error) {
	l, err := b.newLocal()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	wasm, rounds := filepath.Join(b.examples, "burn", "burn.wasm"), strconv.Itoa(b.burnRounds)
	if _, _, err := l.run(ctx, wasm, "0"); err != nil { // compiles it
		return err
	}
	var mu sync.Mutex
	used := 0.0
	r, err := measure(nil, func() error {
		tasks, ctx := errgroup.WithContext(ctx)
		for range b.burnTasks() {
			tasks.Go(func() error {
				_, cpu, err := l.run(ctx, wasm, rounds)
				mu.Lock()
				defer mu.Unlock()
				used += cpu
				return err
			})
		}
		return tasks.Wait()
	})
	if err == nil {
		b.figures.put("burn", localName, r.wall.Seconds())
		b.figures.put("burn cpu", localName, used)
	}
	return err
}

// kernels are small programs in C with arguments that keep them busy for some seconds, so that a hundredth of a second of
// the clock counts for little: floating point, branches, integers.
var kernels = []struct{ name, arg string }{{"nbody", "10000000"}, {"mandelbrot", "6000"}, {"sha256", "300"}}

// bareEngine runs each kernel natively and in the sandbox. The figure is the quotient of their CPU times.
func (b *bench) bareEngine(ctx context.Context) (err error) {
	if len(b.native.kernels) == 0 {
		note("engine: left out, for there is no C compiler")
		return nil
	}
	l, err := b.newLocal()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	product := 1.0
	for _, k := range kernels {
		file := filepath.Join(b.dir, "kernel")
		r, err := measure(nil, func() error {
			return runTask(ctx, task{Argv: []string{b.native.kernels[k.name], k.arg}, Out: file})
		})
		if err != nil {
			return err
		}
		want, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		wasm := filepath.Join(b.kernels, k.name+".wasm")
		if _, _, err := l.run(ctx, wasm, "0"); err != nil {
			return err
		}
		got, cpu, err := l.run(ctx, wasm, k.arg)
		if err == nil && string(got) != string(want) {
			err = fmt.Errorf("WRONG RESULT: %s prints %q, natively %q", k.name, got, want)
		}
		if err != nil {
			return err
		}
		product *= cpu / r.cpu
		b.figures.put("engine "+k.name, "mesh", cpu/r.cpu)
	}
	b.figures.put("engine", "mesh", math.Pow(product, 1/float64(len(kernels))))
	return nil
}
