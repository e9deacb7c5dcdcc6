package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestCut: the pieces are the text, and each but the last ends at a line end.
func TestCut(t *testing.T) {
	dir := t.TempDir()
	line := strings.Repeat("some words ", 93) + "\n"
	want := bytes.Repeat([]byte(line), 2*pieceSize/len(line)+100)
	f, err := os.Create(filepath.Join(dir, "text"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(want); err != nil {
		t.Fatal(err)
	}
	var x text
	if err := x.cut(f, filepath.Join(dir, "pieces")); err != nil {
		t.Fatal(err)
	}
	if len(x.pieces) != 3 {
		t.Fatalf("%d pieces of a text of a little more than 2", len(x.pieces))
	}
	var got []byte
	for _, p := range x.pieces {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if len(data) > pieceSize || data[len(data)-1] != '\n' {
			t.Errorf("%s: %d bytes, the last %q", p, len(data), data[len(data)-1])
		}
		got = append(got, data...)
	}
	if !bytes.Equal(got, want) {
		t.Error("the pieces are not the text")
	}
}

// TestWords: counting pieces and merging the counts is counting the whole.
func TestWords(t *testing.T) {
	counted := func(s string) map[string]*uint64 {
		m := make(map[string]*uint64)
		if err := countWords(strings.NewReader(s), m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	whole := counted("The cat; the DOG\nx1y the")
	for word, n := range map[string]uint64{"the": 3, "cat": 1, "dog": 1, "x": 1, "y": 1} {
		if p := whole[word]; p == nil || *p != n {
			t.Errorf("%q: want %d", word, n)
		}
	}
	if len(whole) != 5 {
		t.Errorf("%d words, want 5", len(whole))
	}
	merged := make(map[string]*uint64)
	if err := mergeCounts(strings.NewReader("cat 1\nthe 2\nthe 1\n"), merged); err != nil {
		t.Fatal(err)
	}
	if len(merged) != 2 || *merged["the"] != 3 || *merged["cat"] != 1 {
		t.Errorf("merged: %v", merged)
	}
	if err := mergeCounts(strings.NewReader("nonsense\n"), merged); err == nil {
		t.Error("a line without a count was taken")
	}
}

// TestCPU: a child's CPU time is seen while it runs, and when it has been waited for.
func TestCPU(t *testing.T) {
	cmd := exec.Command("sh", "-c", "while :; do :; done")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for treesCPU([]int{cmd.Process.Pid}) < 0.05 { // the limit is the test's own
	}
	before := childrenCPU()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if used := childrenCPU() - before; used < 0.05 {
		t.Errorf("%.3f s of CPU seen after the end, want 0.05 or more", used)
	}
}

func TestSpread(t *testing.T) {
	s, _ := spreadOf([]float64{9, 1, 3, 4})
	if s.Median != 3.5 || s.Min != 1 || s.Max != 9 {
		t.Errorf("%+v", s)
	}
	if got := s.text(1); got != "3.5 (1.0-9.0)" {
		t.Error(got)
	}
	if _, ok := spreadOf(nil); ok {
		t.Error("a spread of nothing")
	}
}

func TestOptionsNameWhatIsWrong(t *testing.T) {
	_, err := parse([]string{"-run", "nap", "-systems", "abacus", "-rounds", "0", "-bin", t.TempDir()})
	if err == nil {
		t.Fatal("taken")
	}
	for _, want := range []string{`"nap"`, `"abacus"`, "-rounds", "make build"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not named: %v", want, err)
		}
	}
}
