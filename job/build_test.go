package job

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compute-mesh/mesh/protocol"
	"pgregory.net/rapid"
)

// The dumb oracle of a reduction: lists of lists, cut into runs of k until one is left.
func oracleTree(n, k int) [][][]int {
	outputs := make([]int, n)
	for i := range outputs {
		outputs[i] = i
	}
	var tree [][][]int
	for {
		var level [][]int
		if k == 0 || len(outputs) == 0 {
			level = [][]int{outputs}
		} else {
			level = slices.Collect(slices.Chunk(outputs, k))
		}
		tree = append(tree, level)
		if len(level) == 1 {
			return tree
		}
		outputs = outputs[:len(level)]
	}
}

func TestReductionIsTheOracles(t *testing.T) {
	base := fullSpec(t)
	rapid.Check(t, func(r *rapid.T) {
		n := rapid.IntRange(0, 3000).Draw(r, "n")
		k := rapid.SampledFrom([]int{0, 2, 3, 7, 64, 2999, 3000, 3001}).Draw(r, "k")
		s := base
		s.Input.Count, s.FanIn = uint64(n), uint64(k)
		m, err := Build(s)
		if err != nil {
			r.Fatal(err)
		}
		tree := oracleTree(n, k)
		if len(m.Stages) != 1+len(tree) {
			r.Fatalf("%d stages, want 1+%d", len(m.Stages), len(tree))
		}
		for l, level := range tree {
			stage := protocol.StageIndex(l + 1)
			if m.Stages[stage].Tasks != uint64(len(level)) {
				r.Fatalf("stage %d has %d tasks, want %d", stage, m.Stages[stage].Tasks, len(level))
			}
			for i, reads := range level {
				task, err := m.Task(stage, protocol.TaskIndex(i), Entry{Root: s.Input.Root})
				if err != nil {
					r.Fatal(err)
				}
				want := protocol.Range{}
				if len(reads) > 0 {
					want = protocol.Range{Lo: protocol.TaskIndex(reads[0]), Hi: protocol.TaskIndex(reads[len(reads)-1] + 1)}
				}
				if task.Reads != want {
					r.Fatalf("task %d of stage %d reads %v, want %v", i, stage, task.Reads, want)
				}
			}
		}
	})
}

func TestShapes(t *testing.T) {
	for _, c := range []struct {
		tasks, fanIn uint64
		reduce       bool
		want         string
	}{
		{0, 0, false, "map:0"},
		{5, 0, false, "map:5"},
		{0, 0, true, "map:0 reduce:1"},
		{1, 0, true, "map:1 reduce:1"},
		{5, 0, true, "map:5 reduce:1"},
		{0, 4, true, "map:0 reduce-1:1"},
		{1, 4, true, "map:1 reduce-1:1"},
		{4, 4, true, "map:4 reduce-1:1"},
		{5, 4, true, "map:5 reduce-1:2 reduce-2:1"},
		{17, 4, true, "map:17 reduce-1:5 reduce-2:2 reduce-3:1"},
	} {
		s := arraySpec(t, c.tasks)
		s.FanIn = c.fanIn
		if c.reduce {
			s.Reduce = &s.Map
			s.Map.Args = nil
		}
		m := build(t, s)
		var got []string
		for _, stage := range m.Stages {
			got = append(got, fmt.Sprintf("%s:%d", stage.Name, stage.Tasks))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%d tasks, fan-in %d: %v, want %s", c.tasks, c.fanIn, got, c.want)
		}
		if out := m.OutputStage(); int(out) != len(m.Stages)-1 {
			t.Errorf("%s: outputs are stage %d's", c.want, out)
		}
	}
}

// The deepest tree there can be fits the limits.
func TestDeepestTree(t *testing.T) {
	s := arraySpec(t, protocol.MaxTasks)
	s.Reduce, s.FanIn = &s.Map, 2
	m := build(t, s)
	if len(m.Stages) != 31 {
		t.Errorf("%d stages", len(m.Stages))
	}
	sign(t, m)
}

func TestGroups(t *testing.T) {
	for n := range uint64(5) {
		if m := build(t, arraySpec(t, n<<20)); m.Groups != 1 {
			t.Errorf("an array of %d tasks has %d groups, want 1", n<<20, m.Groups)
		}
	}
	for _, c := range []struct {
		tasks, bytes uint64
		want         int
	}{
		{0, 0, 1}, {1, 1 << 40, 1}, {100, GroupBytes, 1}, {100, 2*GroupBytes - 1, 1}, {100, 2 * GroupBytes, 2},
		{3, 1 << 40, 3}, {65, 512 << 20, 32}, {1 << 30, 1 << 40, 64}, {1 << 30, 63 * GroupBytes, 63},
	} {
		s := fullSpec(t)
		s.Input.Count, s.Input.Bytes = c.tasks, c.bytes
		m := build(t, s)
		if m.Groups != c.want {
			t.Errorf("%d tasks of %d bytes: %d groups, want %d", c.tasks, c.bytes, m.Groups, c.want)
		}
		var next protocol.TaskIndex
		for g := range m.Groups {
			r := m.GroupTasks(0, g)
			if r.Lo != next {
				t.Errorf("%d tasks: group %d begins with %d, want %d", c.tasks, g, r.Lo, next)
			}
			next = r.Hi
			if r.Lo < r.Hi && (m.GroupOf(0, r.Lo) != g || m.GroupOf(0, r.Hi-1) != g) {
				t.Errorf("%d tasks: %v is not all of group %d", c.tasks, r, g)
			}
			if even := c.tasks / uint64(m.Groups); r.Len() != even && r.Len() != even+1 {
				t.Errorf("%d tasks: group %d has %d", c.tasks, g, r.Len())
			}
		}
		if uint64(next) != c.tasks {
			t.Errorf("%d tasks: the groups end with %d", c.tasks, next)
		}
		for stage := range m.Stages[1:] {
			if r := m.GroupTasks(protocol.StageIndex(stage+1), 0); r.Len() != m.Stages[stage+1].Tasks {
				t.Errorf("stage %d: %v is of group 0", stage+1, r)
			}
		}
	}
}

func TestBuildIsCanonical(t *testing.T) {
	s := fullSpec(t)
	m := build(t, s)
	if want := []string{"A=2", "EMPTY=", "LANG=C"}; !slices.Equal(m.Stages[0].Env, want) {
		t.Errorf("environment %q, want %q", m.Stages[0].Env, want)
	}
	if want := []int32{0, 1}; !slices.Equal(m.Stages[0].OkExit, want) {
		t.Errorf("statuses %v, want %v", m.Stages[0].OkExit, want)
	}
	if m.Files[0].Name != "model" || m.Stages[0].Program.Name != "count.wasm" {
		t.Errorf("files %v, program %q", m.Files, m.Stages[0].Program.Name)
	}
	if m.Expires.Sub(m.Created) != 30*24*time.Hour {
		t.Errorf("lives %s", m.Expires.Sub(m.Created))
	}
	slices.Reverse(s.Files)
	slices.Reverse(s.OkExit)
	if a, b := sign(t, m), sign(t, build(t, s)); a.ID != b.ID {
		t.Errorf("order of files and statuses makes another job")
	}
	s.Nonce[15]++
	if a, b := sign(t, m), sign(t, build(t, s)); a.ID == b.ID {
		t.Errorf("another nonce makes the same job")
	}
}

func TestBuildDefaultsTheName(t *testing.T) {
	s := fullSpec(t)
	s.Name = ""
	if m := build(t, s); m.Name != "count.wasm" {
		t.Errorf("got %q", m.Name)
	}
}

func TestBuildRefuses(t *testing.T) {
	for name, change := range map[string]func(*Spec){
		"array and an input":       func(s *Spec) { s.Array = 3 },
		"without a reduce program": func(s *Spec) { s.Reduce = nil },
		"without an input":         func(s *Spec) { s.Input = Input{} },
		"reduces nothing":          func(s *Spec) { s.FanIn = 1 },
		"Nonce":                    func(s *Spec) { s.Nonce = [16]byte{} },
	} {
		s := fullSpec(t)
		change(&s)
		if _, err := Build(s); err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), "array of 3 tasks", "array"), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
