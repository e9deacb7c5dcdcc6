package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"time"
)

// bench is one run.
type bench struct {
	options
	dir, examples, kernels string
	native                 programs
	text                   text
	burnRounds             int
	cores                  int // that can be busy: a bare program run on all of them is the ideal
	engine                 string
	figures                *figures
}

// The length of what is long by itself.
const (
	latencies  = 20               // no-ops one after the other
	burnTasks  = 64               // of burnSecond of CPU each, run natively
	burnSecond = 1.0              //
	quiet      = 60 * time.Second // before idle is measured, and how long it is
)

// A workload measures one system in one round.
type workload struct {
	name   string
	first  bool // in the first round alone: it is long, and steady by itself
	others bool // for the others that is so
	run    func(*bench, context.Context, system, int) error
	bare   func(*bench, context.Context) error // what needs no system, and may be all there is
}

func workloads() []workload {
	return []workload{
		{name: "latency", run: (*bench).latency},
		{name: "noop", run: (*bench).noop},
		{name: "words", run: (*bench).words, bare: (*bench).bareWords},
		{name: "burn", others: true, run: (*bench).burn, bare: (*bench).bareBurn},
		{name: "engine", bare: (*bench).bareEngine},
		{name: "transfer", run: (*bench).transfer, bare: (*bench).bareDisk},
		{name: "idle", first: true, run: (*bench).idle},
		{name: "growth", first: true, run: (*bench).growth},
	}
}

// installed are the systems that can be measured here, in the order in which they are.
func installed() []string {
	list := []string{"mesh", "nats", "xargs"}
	for _, s := range []struct{ name, needs string }{{"parallel", "parallel"}, {"gearman", "gearmand"}, {"dask", "dask-scheduler"}} {
		if _, err := exec.LookPath(s.needs); err == nil {
			list = append(list, s.name)
		}
	}
	return list
}

func workloadNames() []string {
	var names []string
	for _, w := range workloads() {
		names = append(names, w.name)
	}
	return names
}

// prepare makes what the workloads need.
func (b *bench) prepare(ctx context.Context) error {
	b.cores = min(runtime.NumCPU(), workers)
	var err error
	if b.native, err = buildPrograms(ctx, b.examples, b.kernels, b.dir); err != nil {
		return err
	}
	if b.runs("words") {
		note("writing %d MiB of text", b.options.text>>20)
		if b.text, err = makeText(ctx, b.dir, b.options.text); err != nil {
			return err
		}
	}
	if b.runs("burn") {
		return b.calibrate(ctx)
	}
	return nil
}

func (b *bench) runs(name string) bool {
	for _, w := range b.run {
		if w == name {
			return true
		}
	}
	return false
}

// rounds runs the workloads round by round and in a round system by system, so that what else the machine does hits
// all alike.
func (b *bench) rounds(ctx context.Context) error {
	var faults []error
	for round := range b.options.rounds {
		for _, w := range workloads() {
			if !b.runs(w.name) || w.first && round > 0 {
				continue
			}
			if w.bare != nil {
				if err := w.bare(b, ctx); err != nil {
					return err
				}
			}
			if w.run == nil {
				continue
			}
			for _, s := range b.all() {
				if w.others && round > 0 && s.name() != "mesh" {
					continue
				}
				note("round %d of %d: %s: %s", round+1, b.options.rounds, w.name, s.name())
				if err := b.one(ctx, w, s, round); err != nil {
					faults = append(faults, fmt.Errorf("%s: %s: %w", w.name, s.name(), err))
				}
				if ctx.Err() != nil {
					return errors.Join(faults...)
				}
			}
		}
	}
	return errors.Join(faults...)
}

// all are the systems, new ones.
func (b *bench) all() []system {
	var list []system
	for _, name := range b.systems {
		switch name {
		case "mesh":
			list = append(list, &mesh{bin: b.bin, examples: b.examples, dir: filepath.Join(b.dir, "net")})
		case "nats":
			list = append(list, queued{&jets{dir: b.dir}, b.native, b.dir})
		case "xargs":
			list = append(list, queued{xargs{}, b.native, b.dir})
		case "parallel":
			list = append(list, queued{parallel{b.dir}, b.native, b.dir})
		case "gearman":
			list = append(list, queued{&gearman{dir: b.dir}, b.native, b.dir})
		case "dask":
			list = append(list, queued{&dask{dir: b.dir}, b.native, b.dir})
		}
	}
	return list
}

// one starts a system, has it run a few no-ops, so that its workers are there, and measures it.
func (b *bench) one(ctx context.Context, w workload, s system, round int) (err error) {
	defer func() { err = errors.Join(err, s.down()) }()
	if err := s.up(ctx); err != nil {
		return err
	}
	if m, ok := s.(*mesh); ok && b.engine == "" {
		if b.engine, err = m.engine(ctx); err != nil {
			return err
		}
	}
	if err := s.noops(ctx, 2*workers); err != nil {
		return err
	}
	return w.run(b, ctx, s, round)
}

func (b *bench) latency(ctx context.Context, s system, _ int) error {
	for range latencies {
		r, err := measure(s.daemons(), func() error { return s.noops(ctx, 1) })
		if err != nil {
			return err
		}
		b.figures.add("latency", s, r, r.wall.Seconds()*1000)
		b.figures.add("latency cpu", s, r, r.cpu*1000)
	}
	return nil
}

func (b *bench) noop(ctx context.Context, s system, _ int) error {
	one, err := measure(s.daemons(), func() error { return s.noops(ctx, 1) })
	if err != nil {
		return err
	}
	counts := []int{1000, 10000}
	if b.quick || s.name() == "parallel" { // which takes a minute and a half for 10,000
		counts = counts[:1]
	}
	for _, n := range counts {
		r, err := measure(s.daemons(), func() error { return s.noops(ctx, n) })
		if err != nil {
			return err
		}
		name := "noop " + strconv.Itoa(n)
		b.figures.add(name, s, r, float64(n)/r.wall.Seconds())
		b.figures.add(name+" marginal", s, r, float64(n)/(r.wall-one.wall).Seconds())
		b.figures.add(name+" cpu", s, r, r.cpu*1000/float64(n))
	}
	m, ok := s.(*mesh)
	if !ok {
		return nil
	}
	n := counts[len(counts)-1]
	r, err := measure(s.daemons(), func() error { return m.indexes(ctx, n) })
	if err != nil {
		return err
	}
	b.figures.add("index", s, r, float64(n)/r.wall.Seconds())
	b.figures.add("index cpu", s, r, r.cpu*1000/float64(n))
	return nil
}

// growth runs ever larger jobs of no-ops. The rate counts less one no-op, the bytes are those that all peers send.
func (b *bench) growth(ctx context.Context, s system, _ int) error {
	m, ok := s.(*mesh)
	if !ok {
		return nil
	}
	one, err := measure(s.daemons(), func() error { return s.noops(ctx, 1) })
	if err != nil {
		return err
	}
	counts := []int{1_000, 10_000, 100_000, 1_000_000}
	if b.quick {
		counts = counts[:2]
	}
	for _, n := range counts {
		before, err := m.sentByAll(ctx)
		if err != nil {
			return err
		}
		r, err := measure(s.daemons(), func() error { return s.noops(ctx, n) })
		if err != nil {
			return err
		}
		after, err := m.sentByAll(ctx)
		if err != nil {
			return err
		}
		name := "growth " + strconv.Itoa(n)
		b.figures.add(name, s, r, float64(n)/(r.wall-one.wall).Seconds())
		b.figures.add(name+" cpu", s, r, r.cpu*1000/float64(n))
		b.figures.add(name+" bytes", s, r, (after-before)/float64(n))
		b.figures.add(name+" memory", s, r, largest(s.daemons())/(1<<20))
	}
	return nil
}

// bareWords counts the words in one process: that time, divided by the cores, is the ideal.
func (b *bench) bareWords(ctx context.Context) error {
	count := append(b.native.wordcount[:len(b.native.wordcount):len(b.native.wordcount)], "count")
	r, err := measure(nil, func() error {
		return runTask(ctx, task{Argv: count, In: b.text.whole, Out: filepath.Join(b.dir, "expected")})
	})
	if err != nil {
		return err
	}
	for _, name := range []string{"words", "words replicated"} {
		b.figures.addIdeal(name, r, r.wall.Seconds()/float64(b.cores))
		b.figures.addIdeal(name+" cpu", r, r.cpu)
	}
	return b.localWords(ctx)
}

func (b *bench) words(ctx context.Context, s system, _ int) error {
	out := filepath.Join(b.dir, "counted")
	count := func(name string, replicas int) error {
		w := watch(ctx, s.daemons())
		r, err := measure(s.daemons(), func() error { return s.words(ctx, b.text, replicas, out) })
		most := w.end()
		if err == nil {
			err = same(out, filepath.Join(b.dir, "expected"))
		}
		if err != nil {
			return err
		}
		b.figures.add(name, s, r, r.wall.Seconds())
		b.figures.add(name+" cpu", s, r, r.cpu)
		for program, bytes := range most {
			if s.name() == "mesh" {
				b.figures.add("words memory "+program, s, r, bytes/(1<<20))
			}
		}
		return nil
	}
	if err := count("words", 1); err != nil {
		return err
	}
	if s.name() != "mesh" { // the queues replicate nothing
		b.figures.copy("words", "words replicated", s)
		b.figures.copy("words cpu", "words replicated cpu", s)
		return nil
	}
	// A mesh that has the text already would have nothing to ship.
	if err := s.down(); err != nil {
		return err
	}
	if err := s.up(ctx); err != nil {
		return err
	}
	if err := s.noops(ctx, 2*workers); err != nil {
		return err
	}
	return count("words replicated", 3)
}

// same fails where two files differ.
func same(got, want string) error {
	a, err := os.ReadFile(got)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(want)
	if err == nil && !bytes.Equal(a, b) {
		err = errors.New("WRONG RESULT: it is not what the bare program prints")
	}
	return err
}

// calibrate finds how many rounds of burn take burnSecond of CPU.
func (b *bench) calibrate(ctx context.Context) error {
	const trial = 20
	r, err := measure(nil, func() error { return b.nativeBurn(ctx, trial, os.DevNull) })
	if err != nil {
		return err
	}
	b.burnRounds = max(1, int(trial*burnSecond/r.cpu))
	return nil
}

func (b *bench) nativeBurn(ctx context.Context, rounds int, out string) error {
	argv := append(b.native.burn[:len(b.native.burn):len(b.native.burn)], strconv.Itoa(rounds))
	return runTask(ctx, task{Argv: argv, Out: out})
}

func (b *bench) burnTasks() int {
	if b.quick {
		return 2 * workers
	}
	return burnTasks
}

// bareBurn runs one task: its CPU time, times the tasks, divided by the cores, is the ideal.
func (b *bench) bareBurn(ctx context.Context) error {
	out := filepath.Join(b.dir, "burnt")
	r, err := measure(nil, func() error { return b.nativeBurn(ctx, b.burnRounds, out) })
	if err != nil {
		return err
	}
	b.figures.addIdeal("burn", r, r.cpu*float64(b.burnTasks())/float64(b.cores))
	b.figures.addIdeal("burn cpu", r, r.cpu*float64(b.burnTasks()))
	one, err := os.ReadFile(out)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(b.dir, "expected-burnt"), bytes.Repeat(one, b.burnTasks()), 0o666); err != nil {
		return err
	}
	return b.localBurn(ctx)
}

func (b *bench) burn(ctx context.Context, s system, _ int) error {
	out := filepath.Join(b.dir, "burnt")
	r, err := measure(s.daemons(), func() error { return s.burn(ctx, b.burnTasks(), b.burnRounds, out) })
	if err == nil {
		err = same(out, filepath.Join(b.dir, "expected-burnt"))
	}
	if err != nil {
		return err
	}
	b.figures.add("burn", s, r, r.wall.Seconds())
	b.figures.add("burn cpu", s, r, r.cpu)
	return nil
}

// idle looks at every peer or daemon after some time of quiet.
func (b *bench) idle(ctx context.Context, s system, _ int) error {
	if len(s.daemons()) == 0 {
		return nil
	}
	span := quiet
	if b.quick {
		span = quiet / 20
	}
	if err := pause(ctx, span); err != nil {
		return err
	}
	m, _ := s.(*mesh)
	cpu, sent := make([]float64, len(s.daemons())), make([]float64, len(s.daemons()))
	look := func(sign float64) error {
		for i, d := range s.daemons() {
			cpu[i] += sign * treesCPU([]int{d})
			if m == nil {
				continue
			}
			n, err := m.sent(ctx, i)
			if err != nil {
				return err
			}
			sent[i] += sign * n
		}
		return nil
	}
	r, err := measure(s.daemons(), func() error { return errors.Join(look(-1), pause(ctx, span), look(1)) })
	if err != nil {
		return err
	}
	for i, d := range s.daemons() {
		tree := trees([]int{d})
		b.figures.add("idle rss", s, r, resident(tree)/(1<<20))
		b.figures.add("idle pss", s, r, proportional(tree)/(1<<20))
		b.figures.add("idle cpu", s, r, 100*cpu[i]/r.wall.Seconds())
		if m != nil {
			b.figures.add("idle sent", s, r, sent[i]/r.wall.Seconds())
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func note(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
