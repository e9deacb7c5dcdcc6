package sandbox

import (
	"context"
	"runtime"
	"testing"
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
	for b.Loop() {
		r, err := p.Run(context.Background(), task)
		if err != nil || r.Class != ClassDone {
			b.Fatal(r, err)
		}
	}
}
