package job

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// The table of docs/design.md section 7: arguments and their replacements.
func TestTaskArguments(t *testing.T) {
	piece := Entry{Root: rawCID(t, "piece"), Size: 5, Name: "books/moby dick.txt"}
	nameless := Entry{Root: rawCID(t, "piece"), Size: 5}
	line := func(s string) Entry { return Entry{Line: s} }
	for _, c := range []struct {
		name  string
		args  string
		entry Entry
		want  string // joined by |; an error's part after "error: "
	}{
		{"as given", `-v 'a b' ''`, piece, `count.wasm|-v|a b|`},
		{"index and count", `{index} -of={count}`, piece, `count.wasm|7|-of=70`},
		{"input and name", `{input} {name}`, piece, `count.wasm|/in/moby dick.txt|books/moby dick.txt`},
		{"no name", `{input} [{name}]`, nameless, `count.wasm|/in/input|[]`},
		{"twice in one", `{index}{index}-{count}`, piece, `count.wasm|77-70`},
		{"unknown braces", `{} {foo} {INDEX} a{3} {0} {01} {{index}} {index {`, piece, `count.wasm|{}|{foo}|{INDEX}|a{3}|{0}|{01}|{7}|{index|{`},
		{"fields", `-a {2} -b {1}{1}`, line("x  yy\tz"), `count.wasm|-a|yy|-b|xx`},
		{"tenth field", `{10}`, line("1 2 3 4 5 6 7 8 9 ten"), `count.wasm|ten`},
		{"a field is no pattern", `{1}`, line("{index}"), `count.wasm|{index}`},
		{"fields unasked", `-q`, line("a b"), `count.wasm|-q|a|b`},
		{"empty line", `-q`, line(""), `count.wasm|-q`},
		{"missing field", `{3}`, line("a b"), `error: has 2 fields`},
		{"field of an empty line", `{1}`, line(""), `error: has 0 fields`},
		{"input of a line", `{input}`, line("a b"), `error: no input file`},
		{"name of a line", `{name}`, line("a b"), `error: no input file`},
		{"too long", strings.Repeat("{1}", 5), line(strings.Repeat("x", MaxLine)), `error: at most`},
	} {
		s := fullSpec(t)
		s.Map.Program.Name = "bin/count.wasm"
		var err error
		if s.Map.Args, err = SplitArgs(c.args); err != nil {
			t.Fatal(err)
		}
		m := build(t, s)
		task, err := m.Task(0, 7, c.entry)
		if part, fails := strings.CutPrefix(c.want, "error: "); fails {
			if err == nil || !strings.Contains(err.Error(), part) || !strings.Contains(err.Error(), "task 7") || !errors.Is(err, ErrPlan) {
				t.Errorf("%s: error %v, want %q", c.name, err, part)
			}
			continue
		}
		if err != nil || strings.Join(task.Args, "|") != c.want {
			t.Errorf("%s: %q, %v; want %q", c.name, task.Args, err, c.want)
		}
	}
}

func TestArrayTask(t *testing.T) {
	s := arraySpec(t, 24)
	s.Map.Args = []string{"-frame", "{index}", "-of", "{count}", "/in/model.stl", "a{1}"}
	m := build(t, s)
	task, err := m.Task(0, 23, Entry{})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"count.wasm", "-frame", "23", "-of", "24", "/in/model.stl", "a{1}"}; !slices.Equal(task.Args, want) {
		t.Errorf("arguments %q, want %q", task.Args, want)
	}
	if task.InputName != "" || task.Reads.Len() != 0 {
		t.Errorf("an array task has input %q, %v", task.InputName, task.Reads)
	}
	if _, err := m.Task(0, 23, Entry{Root: rawCID(t, "x")}); err == nil {
		t.Error("an array task takes an entry")
	}
}

func TestNoSuchTask(t *testing.T) {
	m := build(t, arraySpec(t, 24))
	for _, at := range []struct {
		stage protocol.StageIndex
		task  protocol.TaskIndex
	}{{0, 24}, {1, 0}, {1 << 31, 0}, {0, 1 << 63}} {
		if _, err := m.Task(at.stage, at.task, Entry{}); !errors.Is(err, ErrPlan) {
			t.Errorf("task %d of stage %d is there", at.task, at.stage)
		}
	}
}

func TestReduceTask(t *testing.T) {
	s := fullSpec(t)
	s.Reduce.Args = []string{"{input}", "{index}/{count}", "{1}"}
	m := build(t, s)
	if _, err := m.Task(1, 17, Entry{}); err == nil {
		t.Error("a reducer needs no seal's root")
	}
	task, err := m.Task(1, 17, Entry{Root: mustCID(t, codecDagCBOR, "seal")})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"sum.wasm", "/in/input", "17/18", "{1}"}; !slices.Equal(task.Args, want) {
		t.Errorf("arguments %q, want %q", task.Args, want)
	}
	if want := (protocol.Range{Lo: 68, Hi: 70}); task.Reads != want || task.InputName != "input" {
		t.Errorf("reads %v as %q, want %v", task.Reads, task.InputName, want)
	}
}

func TestTaskEnvironment(t *testing.T) {
	s := fullSpec(t)
	s.Env = []string{"ZED=1", "A=b=c", "NAME={name}"}
	m := build(t, s)
	task, err := m.Task(0, 69, Entry{Root: rawCID(t, "piece")})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"A=b=c", "MESH_STAGE=map", "MESH_TASK_COUNT=70", "MESH_TASK_INDEX=69", "NAME={name}", "ZED=1"}
	if !slices.Equal(task.Env, want) {
		t.Errorf("environment %q, want %q", task.Env, want)
	}
}

func TestInputNameKeepsApart(t *testing.T) {
	m := build(t, fullSpec(t)) // files: model, stop/words.txt
	for name, want := range map[string]string{
		"":                "input",
		"a.txt":           "a.txt",
		"deep/down/a.txt": "a.txt",
		"x/model":         "input-1",
		"stop":            "input-1",
		"words.txt":       "words.txt",
	} {
		base := name
		if want == "input-1" {
			m.Files = append(m.Files, File{Name: "input"})
		}
		task, err := m.Task(0, 0, Entry{Root: rawCID(t, "p"), Name: base})
		m.Files = m.Files[:2]
		if err != nil || task.InputName != want {
			t.Errorf("%q: appears as %q, %v; want %q", name, task.InputName, err, want)
		}
	}
}

// The seed is of what the task computes from, and of nothing else.
func TestSeed(t *testing.T) {
	piece := Entry{Root: rawCID(t, "piece"), Size: 5, Name: "a"}
	seed := func(change func(*Spec), index protocol.TaskIndex, e Entry) [32]byte {
		s := fullSpec(t)
		change(&s)
		m := build(t, s)
		task, err := m.Task(0, index, e)
		if err != nil {
			t.Fatal(err)
		}
		return task.Seed
	}
	same := func(*Spec) {}
	base := seed(same, 7, piece)
	for name, change := range map[string]func(*Spec){
		"nonce":    func(s *Spec) { s.Nonce[3]++ },
		"name":     func(s *Spec) { s.Name = "another" },
		"time":     func(s *Spec) { s.Now = s.Now.AddDate(0, 1, 0) },
		"retries":  func(s *Spec) { s.Retries++ },
		"mesh":     func(s *Spec) { s.Mesh = "lab" },
		"replicas": func(s *Spec) { s.Replicas++ },
	} {
		if seed(change, 7, piece) != base {
			t.Errorf("another %s gives another seed", name)
		}
	}
	seen := map[[32]byte]string{base: "the base"}
	check := func(name string, got [32]byte) {
		if other, twice := seen[got]; twice {
			t.Errorf("%s has the seed of %s", name, other)
		}
		seen[got] = name
	}
	check("another program", seed(func(s *Spec) { s.Map.Program.Root = rawCID(t, "other") }, 7, piece))
	check("other arguments", seed(func(s *Spec) { s.Map.Args = append(s.Map.Args, "") }, 7, piece))
	check("another split of arguments", seed(func(s *Spec) { s.Map.Args = []string{"-", "n{index}"} }, 7, piece))
	check("another environment", seed(func(s *Spec) { s.Env = append(s.Env, "B=") }, 7, piece))
	check("another file", seed(func(s *Spec) { s.Files[0].Root = rawCID(t, "other") }, 7, piece))
	check("another index", seed(func(s *Spec) { s.Map.Args = nil }, 8, piece))
	check("no arguments", seed(func(s *Spec) { s.Map.Args = nil }, 7, piece))
	check("another piece", seed(same, 7, Entry{Root: rawCID(t, "other"), Size: 5, Name: "a"}))
}

func TestGoldenSeed(t *testing.T) {
	s := sign(t, build(t, fullSpec(t)))
	task, err := s.Manifest.Task(0, 7, Entry{Root: rawCID(t, "piece"), Name: "a.txt"})
	if err != nil {
		t.Fatal(err)
	}
	first := s.InputKey(0, nil)
	second := s.InputKey(1, []cid.Cid{mustCID(t, codecDagCBOR, "seal")})
	golden(t, "hashes.golden", strings.Join([]string{protocol.Hash(task.Seed).String(), first.String(), second.String(), ""}, "\n"))
}

func TestInputKey(t *testing.T) {
	spec := fullSpec(t)
	s := sign(t, build(t, spec))
	spec.Nonce[0]++
	other := sign(t, build(t, spec))
	a, b := mustCID(t, codecDagCBOR, "a"), mustCID(t, codecDagCBOR, "b")
	if s.InputKey(0, nil).IsZero() || s.InputKey(0, nil) == other.InputKey(0, nil) {
		t.Error("a first stage's key is not of its job")
	}
	if s.InputKey(1, []cid.Cid{a}) == s.InputKey(1, []cid.Cid{b}) {
		t.Error("a stage's key is not of the seals that it reads")
	}
	for name, key := range map[string]protocol.InputKey{
		"no such stage":          s.InputKey(99, nil),
		"a first stage's seals":  s.InputKey(0, []cid.Cid{a}),
		"no seals":               s.InputKey(1, nil),
		"an undefined seal":      s.InputKey(1, []cid.Cid{cid.Undef}),
		"more seals than stages": s.InputKey(1, []cid.Cid{a, b}),
	} {
		if !key.IsZero() {
			t.Errorf("%s: there is a key", name)
		}
	}
}

func TestCheckInput(t *testing.T) {
	s := newStore()
	lines := []string{"a b", "c", "d e", "f"}
	in := writeIndex(t, s.put, len(lines), func(i int) Entry { return Entry{Line: lines[i]} })
	x := openIndex(t, in.Root, s.get)
	spec := fullSpec(t)
	spec.Input = in
	for args, want := range map[string][]string{
		"-q":      nil,
		"{1}":     nil,
		"{index}": nil,
		"{2}":     {"task 1 ", "task 3 "},
		"{input}": {"task 0 ", "task 1 ", "task 2 ", "task 3 "},
	} {
		spec.Map.Args = []string{args}
		m := build(t, spec)
		err := m.CheckInput(x)
		if (err == nil) != (want == nil) {
			t.Errorf("%s: %v", args, err)
		}
		for _, task := range want {
			if !errors.Is(err, ErrPlan) || !strings.Contains(err.Error(), task) {
				t.Errorf("%s: %v; want %q", args, err, task)
			}
		}
	}
	for name, change := range map[string]func(*Spec){
		"another count": func(s *Spec) { s.Input.Count++ },
		"other bytes":   func(s *Spec) { s.Input.Bytes++ },
		"no input":      func(s *Spec) { s.Input, s.Split, s.Array = Input{}, "", 4 },
	} {
		other := spec
		other.Map.Args = nil
		change(&other)
		m := build(t, other)
		if err := m.CheckInput(x); !errors.Is(err, ErrPlan) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
