package chunkstore

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// testStore opens a store that is closed with the test.
func testStore(t testing.TB, change ...func(*Config)) *Store {
	t.Helper()
	cfg := DefaultConfig(t.TempDir())
	for _, c := range change {
		c(&cfg)
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// randomBytes are n bytes that depend on the seed alone.
func randomBytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	rand.NewChaCha8(key).Read(b)
	return b
}

type sourceFile struct {
	name string
	data []byte
}

// importAll runs a whole import and leaves its chunks pinned in the set "test".
func importAll(t testing.TB, s *Store, split Split, files ...sourceFile) ([]Piece, Summary) {
	t.Helper()
	var pieces []Piece
	im := must(s.NewImport(split, func(p Piece) error { pieces = append(pieces, p); return nil }))(t)
	defer im.Drop()
	for _, f := range files {
		if err := im.Add(context.Background(), f.name, bytes.NewReader(f.data)); err != nil {
			t.Fatal(err)
		}
	}
	sum := must(im.Finish(context.Background()))(t)
	if err := im.Commit(context.Background(), "test"); err != nil {
		t.Fatal(err)
	}
	return pieces, sum
}

// fileBytes reads a file by its root.
func fileBytes(t testing.TB, s *Store, root cid.Cid) []byte {
	t.Helper()
	r := must(s.FileReader(context.Background(), root))(t)
	var b bytes.Buffer
	if _, err := r.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	if int64(b.Len()) != r.Size() {
		t.Fatalf("read %d bytes of %d", b.Len(), r.Size())
	}
	return b.Bytes()
}

func numbered(n int) string { return fmt.Sprintf("file-%d", n) }

// cpuTime is what this process has used so far, user and system: it hardly depends on what else the machine does.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// reportCPU reports used CPU time as seconds for each GiB, of rounds of so many bytes.
func reportCPU(b *testing.B, used time.Duration, bytes int64) {
	b.ReportMetric(used.Seconds()/float64(b.N)/(float64(bytes)/(1<<30)), "cpu-s/GiB")
}
