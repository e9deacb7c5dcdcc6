package sim

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mutant is a bug of mutations/: a diff, and before it what the bug is and the tests and
// seeds that catch it soonest.
//
//	a silent holder is released without being asked
//	catch: TestProbedBeforeReleased
//	catch: seed 17
//	--- a/market/watch.go
//	+++ b/market/watch.go
//	...
type mutant struct {
	name    string
	bug     string
	catches []catch
	files   map[string][]hunk
}

// catch is a run of the simulator that shows a bug: a test's name, or a seed of TestChaos.
type catch string

// hunk is a change of consecutive lines, as they are and as they are to be.
type hunk struct{ old, new []string }

// TestMutationsApply wants every planted bug to fit the code as it is: where the code has
// moved on, its patch is to be made anew.
func TestMutationsApply(t *testing.T) {
	list := mutants(t)
	if len(list) < 20 {
		t.Errorf("%d planted bugs, want at least 20", len(list))
	}
	for _, m := range list {
		if _, err := m.apply("../.."); err != nil {
			t.Error(err)
		}
		if m.bug == "" || len(m.catches) == 0 {
			t.Errorf("%s: want a line that says what the bug is, and one \"catch: TestX\" or \"catch: seed N\"", m.name)
		}
	}
}

// mutants reads mutations/.
func mutants(t *testing.T) []*mutant {
	t.Helper()
	paths, err := filepath.Glob("mutations/*.patch")
	if err != nil {
		t.Fatal(err)
	}
	var list []*mutant
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, parseMutant(strings.TrimSuffix(filepath.Base(path), ".patch"), string(data)))
	}
	return list
}

func parseMutant(name, text string) *mutant {
	m := &mutant{name: name, files: map[string][]hunk{}}
	file := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		hunks := m.files[file]
		switch {
		case strings.HasPrefix(line, "--- "):
		case strings.HasPrefix(line, "+++ b/"):
			file = line[len("+++ b/"):]
		case file == "":
			if c, ok := strings.CutPrefix(line, "catch: "); ok {
				m.catches = append(m.catches, catch(c))
			} else {
				m.bug = strings.TrimSpace(m.bug + " " + line)
			}
		case strings.HasPrefix(line, "@@"):
			m.files[file] = append(hunks, hunk{})
		case len(hunks) > 0 && line != "":
			h := &hunks[len(hunks)-1]
			if line[0] != '+' {
				h.old = append(h.old, line[1:])
			}
			if line[0] != '-' {
				h.new = append(h.new, line[1:])
			}
		}
	}
	return m
}

// apply gives the files that a bug changes, as they are with it. Line numbers don't
// matter, and neither does what is around the changed lines while they are the only such.
func (m *mutant) apply(root string) (map[string][]byte, error) {
	out := map[string][]byte{}
	for path, hunks := range m.files {
		data, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
		text := string(data)
		for _, h := range hunks {
			if n := strings.Count(text, lines(h.old)); n != 1 {
				h = h.bare()
			}
			if n := strings.Count(text, lines(h.old)); len(h.old) == 0 || n != 1 {
				return nil, fmt.Errorf("mutations/%s.patch no longer fits %s: the lines that it changes are there %d times. "+
					"Plant the bug (%s) into the code as it is now, write \"git diff -U1\" over the diff in the patch, and see with "+
					"\"make mutants MUTANT=%s\" that it is caught", m.name, path, n, m.bug, m.name)
			}
			text = strings.Replace(text, lines(h.old), lines(h.new), 1)
		}
		out[filepath.Join(root, path)] = []byte(text)
	}
	return out, nil
}

// bare is a hunk without what it leaves as it is at both ends.
func (h hunk) bare() hunk {
	for len(h.old) > 0 && len(h.new) > 0 && h.old[0] == h.new[0] {
		h.old, h.new = h.old[1:], h.new[1:]
	}
	for len(h.old) > 0 && len(h.new) > 0 && h.old[len(h.old)-1] == h.new[len(h.new)-1] {
		h.old, h.new = h.old[:len(h.old)-1], h.new[:len(h.new)-1]
	}
	return h
}

func lines(list []string) string {
	return strings.Join(append([]string{""}, append(slices.Clone(list), "")...), "\n")
}
