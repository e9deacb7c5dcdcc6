package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compute-mesh/mesh/node/api"
)

// contents lists the files below a directory with what is in them, long ones shortened.
func contents(t *testing.T, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if len(b) > 10 {
			b = fmt.Appendf(nil, "%d bytes", len(b))
		}
		list = append(list, rel+"="+string(b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return list
}

// Where results go, by the value of -o and what else was given.
func TestOutputRules(t *testing.T) {
	files := []string{"00000.out=zero\n", "00001.out=", "00002.out=two\x1b\n", "d/e.bin=100000 bytes", "pic.png=PNG"}
	named := []string{"a/pic.png=PNG", "a/x.txt=zero\n", "b.txt=", "c=two\x1b\n", "d/e.bin=100000 bytes"}
	for name, test := range map[string]struct {
		split string
		args  []string // DIR is the directory looked at
		out   string
		want  []string
		left  bool
	}{
		"standard output":          {args: []string{"-o", "-"}, out: "zero\ntwo\x1b\n", left: true},
		"a file":                   {args: []string{"-o", "DIR/r"}, want: []string{"r=zero\ntwo\x1b\n"}, left: true},
		"a directory that is":      {args: []string{"-o", "DIR"}, want: files},
		"a directory to be":        {args: []string{"-o", "DIR/new/"}, want: under("new/", files)},
		"names":                    {args: []string{"-o", "DIR/n", "--output-name", "r-{index}"}, want: []string{"n/d/e.bin=100000 bytes", "n/pic.png=PNG", "n/r-00000=zero\n", "n/r-00001=", "n/r-00002=two\x1b\n"}},
		"stems":                    {args: []string{"-o", "DIR/n", "--output-name", "{stem}.o"}, want: []string{"n/b.o=", "n/c.o=two\x1b\n", "n/d/e.bin=100000 bytes", "n/pic.png=PNG", "n/x.o=zero\n"}},
		"a directory a task":       {args: []string{"-o", "DIR/n", "--output-name", "{index}/stdout"}, want: []string{"n/00000/pic.png=PNG", "n/00000/stdout=zero\n", "n/00001/d/e.bin=100000 bytes", "n/00001/stdout=", "n/00002/stdout=two\x1b\n"}},
		"split by file":            {split: "file", args: []string{"-o", "DIR/by"}, want: under("by/", named)},
		"split by file, to stdout": {split: "file", args: []string{"-o", "-"}, out: "zero\ntwo\x1b\n", left: true},
	} {
		s := newShelf()
		if test.split != "" {
			s.info.Split = test.split
		}
		home := serve(t, s)
		dir := t.TempDir()
		args := []string{"get", jobID}
		for _, a := range test.args {
			args = append(args, strings.ReplaceAll(a, "DIR", dir))
		}
		r := mesh(t.Context(), home, "", args...)
		if r.status != exitDone {
			t.Errorf("%s: status %d, %s", name, r.status, r.err)
			continue
		}
		if got := contents(t, dir); !slices.Equal(got, sorted(test.want)) {
			t.Errorf("%s:\n%q, want\n%q", name, got, sorted(test.want))
		}
		if r.out != test.out {
			t.Errorf("%s: on standard output %q", name, r.out)
		}
		if left := strings.Contains(r.err, "2 files"); left != test.left {
			t.Errorf("%s: said %s", name, r.err)
		}
	}
}

func under(dir string, names []string) (list []string) {
	for _, n := range names {
		list = append(list, dir+n)
	}
	return list
}

func sorted(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return list
}

// submit and get write the same.
func TestSubmitWritesAsGetDoes(t *testing.T) {
	s := newShelf()
	home := serve(t, s)
	input := tree(t, "a/x.txt", "b.txt", "c")
	for _, args := range [][]string{{"--split", "file"}, {"--output-name", "{index}.o"}, {}} {
		s.info.Split = "lines:8388608"
		names := args
		if slices.Contains(args, "file") {
			s.info.Split, names = "file", nil
		}
		one, two := filepath.Join(t.TempDir(), "r"), filepath.Join(t.TempDir(), "r")
		r := mesh(t.Context(), home, "", append([]string{"submit", "--map", wasm(t), "--input", input, "-o", one}, args...)...)
		if r.status != exitDone || r.out != "" {
			t.Fatalf("%q: status %d, %q, %s", args, r.status, r.out, r.err)
		}
		if r := mesh(t.Context(), home, "", append([]string{"get", jobID, "-o", two}, names...)...); r.status != exitDone {
			t.Fatalf("%q: status %d, %s", args, r.status, r.err)
		}
		if a, b := contents(t, filepath.Dir(one)), contents(t, filepath.Dir(two)); !slices.Equal(a, b) {
			t.Errorf("%q:\n%q\n%q", args, a, b)
		}
	}
}

// A job that was reduced has one output: --split file makes no directory of it.
func TestAReducedOutputIsAFile(t *testing.T) {
	s := newShelf()
	s.info = api.ResultsInfo{Job: jobID, State: api.StateDone, Stage: "reduce", Tasks: 1}
	s.outputs = []output{{api.Output{}, "sum"}}
	home := serve(t, s)
	dir := t.TempDir()
	r := mesh(t.Context(), home, "", "submit", "--map", wasm(t), "--reduce", wasm(t), "--input", tree(t, "a"), "--split", "file", "-o", filepath.Join(dir, "sum"))
	if got := contents(t, dir); r.status != exitDone || !slices.Equal(got, []string{"sum=sum"}) {
		t.Errorf("status %d, %q, %s", r.status, got, r.err)
	}
}

// A file is there as a whole or not at all, whatever was there before stays until then,
// and nothing is left of a broken attempt.
func TestAFailedTransferLeavesNothing(t *testing.T) {
	for _, name := range []string{"r", "sub/"} {
		s := newShelf()
		s.outputs[4].File, s.outputs[4].Task = "../../evil", 2
		home := serve(t, s)
		dir := t.TempDir()
		old := filepath.Join(dir, "r")
		if err := os.WriteFile(old, []byte("old"), 0o640); err != nil {
			t.Fatal(err)
		}
		r := mesh(t.Context(), home, "", "get", jobID, "-o", filepath.Join(dir, name)+strings.Repeat("/", strings.Count(name, "/")))
		got := contents(t, dir)
		for _, file := range got {
			if strings.Contains(file, ".mesh-") || strings.Contains(file, "evil") {
				t.Errorf("%s: %q", name, got)
			}
		}
		if name == "sub/" && (r.status != exitFailed || !strings.Contains(r.err, "../../evil")) {
			t.Errorf("a name that leaves the directory: status %d, %s", r.status, r.err)
		}
		stat, err := os.Stat(old)
		if err != nil || stat.Mode().Perm() != 0o640 {
			t.Errorf("mode of the file that was there: %v, %v", stat, err)
		}
	}
}

func TestALinkInTheDirectoryIsNotFollowed(t *testing.T) {
	s := newShelf()
	home := serve(t, s)
	dir, outside := t.TempDir(), t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "d")); err != nil {
		t.Fatal(err)
	}
	r := mesh(t.Context(), home, "", "get", jobID, "-o", dir)
	if got := contents(t, outside); r.status != exitFailed || len(got) != 0 {
		t.Errorf("status %d, wrote %q", r.status, got)
	}
}

func TestTwoResultsOfOneName(t *testing.T) {
	s := newShelf()
	s.outputs[3].File = "pic.png"
	r := mesh(t.Context(), serve(t, s), "", "get", jobID, "-o", t.TempDir())
	if r.status != exitFailed || !strings.Contains(r.err, "tasks 0 and 1 both have a result called pic.png") || !strings.Contains(r.err, "{index}/stdout") {
		t.Errorf("status %d, %s", r.status, r.err)
	}
}

func TestADeviceIsWrittenToAsItIs(t *testing.T) {
	r := mesh(t.Context(), serve(t, newShelf()), "", "get", jobID, "-o", os.DevNull)
	stat, err := os.Stat(os.DevNull)
	if r.status != exitDone || err != nil || stat.Mode().IsRegular() {
		t.Errorf("status %d, %s, %v", r.status, r.err, stat.Mode())
	}
}
