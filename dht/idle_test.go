package dht

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkIdleMesh measures what four connected peers with nothing to do cost, over a minute each iteration: bytes
// sent and CPU a peer. Run it with -benchtime 1x; a peer is to stay under 1,000 B/s to each neighbour and 1 % of a CPU.
func BenchmarkIdleMesh(b *testing.B) {
	const count, length = 4, time.Minute
	peers, _ := mesh(b, count)
	sent := func() (total int64) {
		for _, n := range peers {
			total += n.Stats().Bytes.Out
		}
		return total
	}
	cpu := func() time.Duration {
		var use unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &use); err != nil {
			b.Fatal(err)
		}
		return time.Duration(use.Utime.Nano() + use.Stime.Nano())
	}
	time.Sleep(5 * time.Second) // joining is over
	for b.Loop() {
		bytes, used := sent(), cpu()
		time.Sleep(length)
		seconds := length.Seconds() * count
		b.ReportMetric(float64(sent()-bytes)/seconds, "B/s/peer")
		b.ReportMetric(100*(cpu()-used).Seconds()/seconds, "%cpu/peer")
	}
	runtime.GC()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	b.ReportMetric(float64(memory.HeapInuse)/count/(1<<20), "MiB-heap/peer")
	b.ReportMetric(float64(runtime.NumGoroutine())/count, "goroutines/peer")
	for proto, t := range peers[0].Stats().Protocols {
		b.Logf("%s: in %d, out %d bytes since the start", proto, t.In, t.Out)
	}
}
