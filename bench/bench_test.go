package main

import (
	"bytes"
	"encoding/xml"
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

// TestRatio: it is of medians, and there is none where one of the two was not measured.
func TestRatio(t *testing.T) {
	f := newFigures()
	for _, x := range []float64{6, 2, 4} {
		f.put("words", "mesh", x)
	}
	f.put("words", ideal, 2)
	f.put("noop 1000", "nats", 1)
	if q, ok := f.ratio("words", ideal); !ok || q != 2 {
		t.Errorf("%v, %v", q, ok)
	}
	for row, name := range map[string]string{"words": "nats", "noop 1000": "nats", "burn": ideal} {
		if q, ok := f.ratio(row, name); ok {
			t.Errorf("%s, %s: %v of nothing", row, name, q)
		}
	}
	if got := f.columns(); strings.Join(got, " ") != "mesh nats "+ideal {
		t.Errorf("columns %v", got)
	}
}

// TestPlot: each system that was measured has a bar, and what was not has no panel.
func TestPlot(t *testing.T) {
	f := newFigures()
	f.put("noop 10000", "mesh", 4500)
	f.put("noop 10000", "xargs", 10)
	plot := string(f.plot())
	if n := strings.Count(plot, "<rect"); n != 2 || !strings.Contains(plot, ">4500<") || strings.Contains(plot, "word count") {
		t.Errorf("%d bars:\n%s", n, plot)
	}
	if err := xml.Unmarshal([]byte(plot), new(struct{})); err != nil {
		t.Error(err)
	}
}

// TestGuarded: a daemon is stopped, though it is not the process that was started.
func TestGuarded(t *testing.T) {
	var d daemons
	if err := d.start(filepath.Join(t.TempDir(), "log"), "sleep", "3600"); err != nil {
		t.Fatal(err)
	}
	for len(trees(d.pids())) < 3 { // the shell, sleep, cat; the limit is the test's own
	}
	below := trees(d.pids())
	d.stop()
	for _, pid := range below {
		if f := statFields(pid, 0, 1); f != nil && f[0] != "Z" {
			t.Errorf("process %d goes on: %v", pid, f)
		}
	}
}
