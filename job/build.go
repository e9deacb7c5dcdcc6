package job

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// Command is a program and what it is called with.
type Command struct {
	Program File // Name is made argument 0: the base of a path
	Args    []string
}

// Input is an input index, as IndexWriter.Finish gives it.
type Input struct {
	Root  cid.Cid // cid.Undef: there is no index
	Count uint64  // entries: the tasks of the first stage
	Bytes uint64  // of all pieces
}

// Spec says what job is wanted, as `mesh submit` does; Build makes the manifest.
// The zero value of a policy field is a choice (no retries, no replicas), so start
// from DefaultSpec.
type Spec struct {
	Mesh      string // default "default"
	Name      string // for people; default: the map program's name
	Owner     protocol.PeerID
	Submitter protocol.PeerID
	Nonce     [16]byte  // from crypto/rand; two equal jobs differ by it
	Now       time.Time // creation; cut to milliseconds

	Map    Command
	Reduce *Command // nil: the outputs are the mappers'
	FanIn  uint64   // outputs a reducer reads, 2 or more; 0: one reducer reads all
	Array  uint64   // tasks without input; used where Input has no root
	Input  Input
	Split  string   // the rule Input was cut by, as in "lines:8388608" or "file"; empty: it is lines of --args-from
	Files  []File   // in any order
	Env    []string // K=V, in any order; of two with one K the later stands

	Limits           Limits
	Retries          int           // default 3
	OkExit           []int32       // of every stage, in any order; empty: only 0
	KeepGoing        bool          // go on with a stage after a task has failed
	Nondeterministic bool          // real clock and randomness
	Priority         int32         // default 0
	Replicas         int           // default 3
	Retention        time.Duration // after the end; default 7 days
	Lifetime         time.Duration // from Now to expiry; default 30 days
}

// Defaults is the limits of a task where nothing is said.
func Defaults() Limits {
	return Limits{
		Memory:  256 << 20,
		Disk:    1 << 30,
		Output:  1 << 30,
		Log:     1 << 20,
		Timeout: time.Hour,
	}
}

// DefaultSpec is a Spec with every default in place; program, input, owner, submitter,
// nonce and time are still missing.
func DefaultSpec() Spec {
	return Spec{
		Mesh: "default", Limits: Defaults(), Retries: 3, Replicas: 3,
		Retention: 7 * 24 * time.Hour, Lifetime: 30 * 24 * time.Hour,
	}
}

// Build plans the stages of the job that is wanted and validates the result. Equal
// specs give equal manifests.
func Build(s Spec) (Manifest, error) {
	if s.Input.Root.Defined() && s.Array != 0 {
		return Manifest{}, fmt.Errorf("job: build: an array of %d tasks and an input: give one of them", s.Array)
	}
	if !s.Input.Root.Defined() && s.Split != "" {
		return Manifest{}, fmt.Errorf("job: build: a split by %q without an input: give one with --input", s.Split)
	}
	if s.Reduce == nil && s.FanIn != 0 {
		return Manifest{}, fmt.Errorf("job: build: a fan-in of %d without a reduce program: give one with --reduce", s.FanIn)
	}
	if s.FanIn == 1 {
		return Manifest{}, fmt.Errorf("job: build: a fan-in of 1 reduces nothing: choose 2 or more")
	}
	created := time.UnixMilli(s.Now.UnixMilli()).UTC()
	m := Manifest{
		Version: ManifestVersion, Mesh: s.Mesh, Nonce: s.Nonce, Name: s.Name,
		Owner: s.Owner, Submitter: s.Submitter,
		Created: created, Expires: created.Add(s.Lifetime.Truncate(time.Millisecond)),
		Retention: s.Retention.Truncate(time.Millisecond),
		Replicas:  s.Replicas, Priority: s.Priority, Retries: s.Retries, KeepGoing: s.KeepGoing,
		Files: slices.Clone(s.Files), Stages: s.stages(),
	}
	if m.Name == "" {
		m.Name = path.Base(s.Map.Program.Name)
	}
	slices.SortStableFunc(m.Files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	m.Groups = m.groups()
	if err := m.Validate(); err != nil {
		return Manifest{}, err
	}
	return m, nil
}

// stages is the map stage and, behind it, the reduction: one stage or a tree of them.
func (s *Spec) stages() []Stage {
	first := s.stage("map", s.Map)
	first.Tasks, first.Source = s.Array, Source{Kind: SourceArray}
	if s.Input.Root.Defined() {
		first.Tasks = s.Input.Count
		first.Source = Source{Kind: SourceIndex, Index: s.Input.Root, Bytes: s.Input.Bytes, Split: s.Split}
	}
	stages := []Stage{first}
	if s.Reduce == nil {
		return stages
	}
	for level := 1; ; level++ {
		name := "reduce"
		if s.FanIn > 0 {
			name = fmt.Sprintf("reduce-%d", level)
		}
		below := len(stages) - 1
		next := s.stage(name, *s.Reduce)
		next.Tasks = ReduceTasks(stages[below].Tasks, s.FanIn)
		next.Source = Source{Kind: SourceOutputs, Stage: protocol.StageIndex(below), FanIn: s.FanIn}
		stages = append(stages, next)
		if next.Tasks == 1 {
			return stages
		}
	}
}

func (s *Spec) stage(name string, c Command) Stage {
	c.Program.Name = path.Base(c.Program.Name)
	return Stage{
		Name: name, Program: c.Program, Args: slices.Clone(c.Args), Env: canonicalEnv(s.Env),
		Limits: s.Limits, OkExit: canonicalOkExit(s.OkExit), Nondeterministic: s.Nondeterministic,
	}
}

// ReduceTasks is how many reducers read n outputs: one with fan-in 0, else one for
// every fanIn outputs, in task order, and one empty input where n is 0.
func ReduceTasks(n, fanIn uint64) uint64 {
	if fanIn == 0 || n <= fanIn {
		return 1
	}
	return (n-1)/fanIn + 1
}

// canonicalEnv sorts the variables; of two with one name the later stands.
func canonicalEnv(env []string) []string {
	last := make(map[string]string, len(env))
	for _, pair := range env {
		key, _, _ := strings.Cut(pair, "=")
		last[key] = pair
	}
	var sorted []string
	for _, pair := range last {
		sorted = append(sorted, pair)
	}
	slices.Sort(sorted)
	return sorted
}

// canonicalOkExit sorts the statuses, each once; only 0 is the empty list.
func canonicalOkExit(ok []int32) []int32 {
	sorted := slices.Compact(slices.Sorted(slices.Values(ok)))
	if slices.Equal(sorted, []int32{0}) {
		return nil
	}
	return sorted
}

// GroupBytes is the least size, in bytes, of a chunk group of the input: large enough that
// a group is worth a Keep and a place in every peer's list, and small enough that a job of
// a few GiB is spread evenly.
const GroupBytes = 16 << 20

// groups is the number of chunk groups that the input makes.
func (m *Manifest) groups() int {
	n := uint64(1)
	for i := range m.Stages {
		if s := &m.Stages[i]; s.Source.Kind == SourceIndex {
			n = max(n, min(s.Tasks, s.Source.Bytes/GroupBytes, protocol.MaxGroups))
		}
	}
	return int(n)
}

// GroupOf is the chunk group of a task's input: tasks that read an index are cut into as
// many runs as there are groups, as equal as can be. What the others read is of group 0,
// as are programs, files and results.
func (m *Manifest) GroupOf(stage protocol.StageIndex, t protocol.TaskIndex) int {
	s := &m.Stages[stage]
	if s.Source.Kind != SourceIndex || uint64(t) >= s.Tasks {
		return 0
	}
	return int(uint64(t) * uint64(m.Groups) / s.Tasks)
}

// GroupTasks is the tasks of a stage whose input is of a chunk group.
func (m *Manifest) GroupTasks(stage protocol.StageIndex, group int) protocol.Range {
	s, g, n := &m.Stages[stage], uint64(group), uint64(max(1, m.Groups))
	if s.Source.Kind != SourceIndex {
		if group > 0 {
			return protocol.Range{}
		}
		return protocol.Range{Hi: protocol.TaskIndex(s.Tasks)}
	}
	first := func(g uint64) protocol.TaskIndex { return protocol.TaskIndex((g*s.Tasks + n - 1) / n) }
	return protocol.Range{Lo: first(g), Hi: first(g + 1)}
}

// OutputStage is the stage whose outputs are the job's: the last.
func (m *Manifest) OutputStage() protocol.StageIndex {
	return protocol.StageIndex(max(1, len(m.Stages)) - 1)
}
