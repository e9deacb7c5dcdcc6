package wasi

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestFixedReadsAsOne: wherever the bytes are cut, every read gives what a read of one file would.
func TestFixedReadsAsOne(t *testing.T) {
	whole := []byte("0123456789abcdefghij")
	for _, cuts := range [][]int{{}, {0}, {20}, {5}, {1, 1, 2, 19}, {7, 14}, {0, 10, 10, 20}} {
		f := &fixed{paths: writeParts(t, whole, cuts)}
		if n, err := f.length(); err != nil || n != int64(len(whole)) {
			t.Fatalf("cut at %v: length %d, %v", cuts, n, err)
		}
		for off := range whole {
			for end := off; end <= len(whole); end++ {
				b := make([]byte, end-off)
				if n, err := f.readAt(b, int64(off)); n != len(b) || err != nil || !bytes.Equal(b, whole[off:end]) {
					t.Fatalf("cut at %v: [%d:%d] is %q, %d, %v", cuts, off, end, b, n, err)
				}
			}
		}
		f.close()
	}
}

// TestFixedThatShrinks: a host file that is not what it was is a fault of the host, which names it.
func TestFixedThatShrinks(t *testing.T) {
	f := &fixed{paths: writeParts(t, []byte("0123456789"), []int{4})}
	if _, err := f.length(); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(f.paths[1], 3); err != nil {
		t.Fatal(err)
	}
	defer f.close()
	if n, err := f.readAt(make([]byte, 10), 0); err == nil || n != 7 {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func writeParts(t *testing.T, whole []byte, cuts []int) (paths []string) {
	t.Helper()
	dir := t.TempDir()
	start := 0
	for i, end := range append(cuts, len(whole)) {
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(path, whole[start:end], 0o600); err != nil {
			t.Fatal(err)
		}
		paths, start = append(paths, path), end
	}
	return paths
}
