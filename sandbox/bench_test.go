package sandbox

import (
	"context"
	"runtime"
	"testing"
	"time"
)

// BenchmarkNoop is a task that does nothing, one at a time: what running a task costs. The CPU of child and parent is
// about what the wall time is, since only one of them works at a time.
func BenchmarkNoop(b *testing.B) {
	p := newPool(b, testConfig(b, 1))
	task := newTask(b, noopWasm)
	run(b, p, task)
	b.ReportAllocs()
	child := int64(0)
	for b.Loop() {
		r, err := p.Run(context.Background(), task)
		if err != nil || r.Class != ClassDone {
			b.Fatal(r, err)
		}
		child += int64(r.CPU)
	}
	b.ReportMetric(float64(child)/float64(b.N), "child-cpu-ns/op")
}

// BenchmarkNoopSlots is the same with a slot for each processor.
func BenchmarkNoopSlots(b *testing.B) {
	p := newPool(b, testConfig(b, runtime.GOMAXPROCS(0)))
	task := newTask(b, noopWasm)
	run(b, p, task)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r, err := p.Run(context.Background(), task)
			if err != nil || r.Class != ClassDone {
				b.Error(r, err)
			}
		}
	})
}

// BenchmarkPrintf is a small C program that uses its C library and prints a line.
func BenchmarkPrintf(b *testing.B) {
	p := newPool(b, testConfig(b, 1))
	task := newTask(b, "../examples/index/index.wasm", "7")
	run(b, p, task)
	b.ReportAllocs()
	child := int64(0)
	for b.Loop() {
		r, err := p.Run(context.Background(), task)
		if err != nil || r.Class != ClassDone {
			b.Fatal(r, err)
		}
		child += int64(r.CPU)
	}
	b.ReportMetric(float64(child)/float64(b.N), "child-cpu-ns/op")
}

// BenchmarkFirst is a task that finds no child, as after Config.IdleTimeout: the child is started and the program's code is
// loaded from the cache.
func BenchmarkFirst(b *testing.B) {
	first(b, func(*Pool) {})
}

// BenchmarkFirstWarm is the same when Warm was called long enough before.
func BenchmarkFirstWarm(b *testing.B) {
	first(b, func(p *Pool) {
		p.Warm()
		eventually(b, "a child is idle", func() bool { c, warming := p.peek(); return c > 0 && warming == nil })
	})
}

func first(b *testing.B, before func(*Pool)) {
	p := newPool(b, testConfig(b, 1))
	task := newTask(b, "../examples/index/index.wasm", "7")
	run(b, p, task)
	for b.Loop() {
		b.StopTimer()
		p.mu.Lock()
		for _, c := range p.idle {
			c.close()
		}
		p.idle = nil
		p.mu.Unlock()
		before(p)
		b.StartTimer()
		r, err := p.Run(context.Background(), task)
		if err != nil || r.Class != ClassDone {
			b.Fatal(r, err)
		}
	}
}

func (p *Pool) peek() (idle int, warming chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.idle), p.warming
}

// BenchmarkCheckpoint is a small snapshot, made and delivered, with the pause that keeps snapshots to a tenth of the time.
func BenchmarkCheckpoint(b *testing.B) {
	cfg := testConfig(b, 1)
	cfg.CheckpointEvery = 1
	p := newPool(b, cfg)
	task := newTask(b, autosaveWasm, "1000000000")
	task.Auto, task.Limits.Timeout = 1, time.Hour
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	n, size := 0, int64(0)
	task.Checkpoint = func(_ context.Context, s Snapshot) {
		if n++; n == b.N {
			size = s.Size
			cancel()
		}
	}
	b.ResetTimer()
	if _, err := p.Run(ctx, task); err == nil {
		b.Fatal("it ended")
	}
	b.ReportMetric(float64(size), "state-bytes")
}
