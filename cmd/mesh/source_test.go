package main

import (
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compute-mesh/mesh/node/api"
)

// tree makes files of a directory; a name that ends in / is a directory.
func tree(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("data of "+name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestWalkIsInByteOrderOfPaths(t *testing.T) {
	dir := tree(t, "b", "a/z", "a-b/x", "B", "é", "-rf", "a b", "a.d/..x", "~", "sp ace/q\"uote")
	if err := os.Symlink("b", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("a-b", filepath.Join(dir, "dirlink")); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "to-dir")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for _, root := range []string{dir, link} {
		found, skipped, err := walk(root, nil)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, o := range found {
			names = append(names, o.name)
		}
		want := []string{"-rf", "B", "a b", "a-b/x", "a.d/..x", "a/z", "b", "sp ace/q\"uote", "~", "é"}
		if !slices.Equal(names, want) {
			t.Errorf("%q, want %q", names, want)
		}
		if len(skipped) != 2 {
			t.Errorf("left out %q", skipped)
		}
	}
}

func TestInclude(t *testing.T) {
	for _, test := range []struct {
		name, patterns string
		want           bool
	}{
		{"a.go", "", true}, {"a.go", "*.go", true}, {"x/y/a.go", "*.go", true}, {"a.goo", "*.go", false},
		{"x/a.go", "x/*.go", true}, {"y/x/a.go", "x/*.go", false}, {"a.c", "*.go *.c", true}, {"x/y/a.c", "x/*", false},
	} {
		if got := included(test.name, strings.Fields(test.patterns)); got != test.want {
			t.Errorf("%s with %q: %t", test.name, test.patterns, got)
		}
	}
}

// A file that is not what it was when it was opened is never taken for whole.
func TestAFileThatChangesWhileBeingImported(t *testing.T) {
	const large = 1 << 20
	for name, change := range map[string]func(path string) error{
		"grows":        func(p string) error { return appendTo(p, "more") },
		"shrinks":      func(p string) error { return os.Truncate(p, 10) },
		"is rewritten": func(p string) error { return os.WriteFile(p, make([]byte, large), 0o644) },
	} {
		s := newShelf()
		home := serve(t, s)
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, make([]byte, large), 0o644); err != nil {
			t.Fatal(err)
		}
		client, err := api.NewClient(home)
		if err != nil {
			t.Fatal(err)
		}
		o, err := find(path)
		if err != nil {
			t.Fatal(err)
		}
		src := &files{left: []origin{o}}
		changed := false
		src.read = func(int) {
			if !changed {
				changed = true
				if err := change(path); err != nil {
					t.Error(err)
				}
			}
		}
		_, err = client.Import(t.Context(), api.ImportOptions{Form: api.FormInput}, src)
		client.Close()
		if api.KindOf(err) != api.KindConflict || !strings.Contains(err.Error(), path+" changed while being imported") {
			t.Errorf("a file that %s: %v", name, err)
		}
		if len(s.imports) != 0 {
			t.Errorf("a file that %s was imported", name)
		}
	}
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(text)
	return err
}

// What submit hands over is what was named: programs once, files under their names, the
// input in its order, with nothing lost.
func TestWhatSubmitImports(t *testing.T) {
	dir := tree(t, "p.wasm", "in/b", "in/a/c", "in/skip.txt", "one", "model.stl", "with:colon")
	path := func(name string) string { return filepath.Join(dir, name) }
	s := newShelf()
	home := serve(t, s)
	r := mesh(t.Context(), home, "from stdin", "submit",
		"--map", "'"+path("p.wasm")+"' -n {index}", "--reduce", path("p.wasm")+" r", "--fan-in", "2",
		"--input", path("one"), "--input", path("in"), "--input", "-", "--input", "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy",
		"--include", "[abc]", "--file", path("model.stl"), "--file", path("model.stl")+":sub/m", "--file", path("with:colon"),
		"--split", "bytes:1MiB", "--env", "K=V", "--retries", "0", "--timeout", "90s", "--memory", "1GiB", "--ok-exit", "0,1",
		"--keep-going", "--nondeterministic", "--name", "n", "--replicas", "0", "--", "last", "--arg")
	if r.status != exitDone || r.out != jobID+"\n" {
		t.Fatalf("status %d, %q, %s", r.status, r.out, r.err)
	}
	var got []string
	for _, in := range s.imports {
		for i, item := range in.items {
			got = append(got, string(in.options.Form)+" "+item.Name+item.CID+" "+strings.TrimPrefix(in.data[i], "data of "))
		}
	}
	cid := "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
	want := []string{
		"program p.wasm p.wasm",
		"files model.stl model.stl", "files sub/m model.stl", "files with:colon with:colon",
		"input one one", "input a/c in/a/c", "input b in/b", "input  from stdin", "input " + cid + cid + " ",
	}
	if !slices.Equal(got, want) {
		t.Errorf("imported %q\nwant %q", got, want)
	}
	q := s.requests[0]
	if q.Map.Name != "p.wasm" || !slices.Equal(q.Map.Args, []string{"-n", "{index}", "last", "--arg"}) || q.Map.Root != q.Reduce.Root ||
		!slices.Equal(q.Reduce.Args, []string{"r"}) || q.FanIn != 2 || q.Index != "bafyindex" || q.Array != nil || q.Split != "bytes:1048576" ||
		len(q.Files) != 3 || q.Files[1].Name != "sub/m" || !slices.Equal(q.Env, []string{"K=V"}) || *q.Retries != 0 || *q.Replicas != 0 ||
		q.Timeout != api.Duration(90*time.Second) || q.Memory != 1<<30 || !slices.Equal(q.OkExit, []int32{0, 1}) || !q.KeepGoing || !q.Nondeterministic || q.Name != "n" {
		t.Errorf("asked for %+v", q)
	}
}

func TestOtherSourcesOfTasks(t *testing.T) {
	s := newShelf()
	home := serve(t, s)
	program := wasm(t)
	empty := t.TempDir()
	for _, test := range []struct {
		stdin string
		args  []string
		form  api.Form
		note  string
	}{
		{"a b\nc d\n", []string{"--args-from", "-"}, api.FormLines, ""},
		{"", []string{"--input", empty}, api.FormInput, "no regular file"},
		{"", []string{"--array", "0"}, "", ""},
	} {
		s.imports, s.requests = nil, nil
		r := mesh(t.Context(), home, test.stdin, append([]string{"submit", "--map", program}, test.args...)...)
		if r.status != exitDone || !strings.Contains(r.err, test.note) || len(s.requests) != 1 {
			t.Fatalf("%q: status %d, %s", test.args, r.status, r.err)
		}
		if test.form == "" {
			if q := s.requests[0]; q.Array == nil || *q.Array != 0 || len(s.imports) != 1 {
				t.Errorf("%q: %+v", test.args, q)
			}
			continue
		}
		in := s.imports[1]
		if in.options.Form != test.form || test.stdin != "" && in.data[0] != test.stdin {
			t.Errorf("%q: %+v", test.args, in)
		}
	}
}

// Whatever bytes an escaper gets, in whatever pieces, nothing that steers a terminal
// comes out.
func TestNothingSteersTheTerminal(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	alphabet := []string{"a", "\n", "\x1b", "[31m", "\x9b", "\u009b", "\u202e", "\u200b", "é", "\xff", "\x00", "\r", "\t", "世", "\ufeff", "\x7f"}
	for range 2000 {
		var b strings.Builder
		e := &escaper{&b}
		for range rnd.IntN(8) {
			if _, err := io.WriteString(e, alphabet[rnd.IntN(len(alphabet))]); err != nil {
				t.Fatal(err)
			}
		}
		for _, r := range b.String() {
			if !harmless(r, "\n\t") {
				t.Fatalf("%q contains %q", b.String(), r)
			}
		}
		if once := b.String(); printable(once) != once {
			t.Fatalf("%q is escaped again", once)
		}
	}
	if got := inline("a\nb\tc"); got != `a\x0ab\x09c` {
		t.Errorf("%q", got)
	}
}
