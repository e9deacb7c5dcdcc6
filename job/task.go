package job

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// MaxTaskArgs bounds the bytes of a task's arguments after replacement: two lines of
// MaxLine beside all that a stage's own arguments may have.
const MaxTaskArgs = MaxArgBytes + 2*MaxLine

// ErrPlan: the manifest and the entry give no task. It is so on every peer and at every
// attempt, so that trying again elsewhere is of no use.
var ErrPlan = errors.New("no such task can be run")

// envPrefix begins the names of variables that only the mesh sets.
const envPrefix = "MESH_"

// inputDir is where a task's program finds its files.
const inputDir = "/in/"

// pieceName is what a piece is called in /in/ where its own name will not do.
const pieceName = "input"

// Task is what one run of a program is given. It follows from the manifest, the index
// and the entry alone: not from the job's ID, the attempt or the peer.
type Task struct {
	Args []string // argument 0 is the program's file name
	Env  []string // K=V in byte order: the mesh's own and the stage's
	Seed [32]byte // of the deterministic clock and randomness

	// InputName is the file under /in/ that the piece appears as: the base of its name,
	// or "input". It is none of the job's files. Empty: the task has no piece.
	InputName string

	// Reads is the tasks of the source stage whose outputs, joined in task order, are
	// the piece; empty for a first stage, and for a reducer over 0 tasks.
	Reads protocol.Range
}

// Task plans the task of a stage. The entry is, by the stage's Source:
//
//   - SourceArray: the zero Entry
//   - SourceIndex: entry number index of the input index
//   - SourceOutputs: Root is the root of the source stage's top seal, the rest is zero
//
// It fails with ErrPlan where there is no such task, where the entry is not of that kind,
// or where an argument names what the entry has not (a field that its line lacks). A
// submitter asks CheckInput before it signs, so that no task fails so later.
func (m *Manifest) Task(stage protocol.StageIndex, index protocol.TaskIndex, entry Entry) (Task, error) {
	if int(stage) >= len(m.Stages) || uint64(index) >= m.Stages[stage].Tasks {
		return Task{}, fmt.Errorf("job: task %d of stage %d: the job has none: %w", index, stage, ErrPlan)
	}
	s := &m.Stages[stage]
	var t Task
	switch s.Source.Kind {
	case SourceArray:
		if entry != (Entry{}) {
			return Task{}, fmt.Errorf("job: task %d of stage %q: it takes no input, but has an entry: %w", index, s.Name, ErrPlan)
		}
	case SourceIndex:
		if entry.Root.Defined() {
			t.InputName = m.inputName(entry.Name)
		}
	case SourceOutputs:
		if !entry.Root.Defined() {
			return Task{}, fmt.Errorf("job: task %d of stage %q: the root of its source's top seal is missing: %w", index, s.Name, ErrPlan)
		}
		t.InputName = m.inputName("")
		t.Reads = m.reads(s, index)
	}
	var err error
	if t.Args, err = s.args(index, entry, t.InputName); err != nil {
		return Task{}, fmt.Errorf("job: task %d of stage %q: %w: %w", index, s.Name, ErrPlan, err)
	}
	t.Env = slices.Sorted(slices.Values(append([]string{
		envPrefix + "STAGE=" + s.Name,
		envPrefix + "TASK_COUNT=" + strconv.FormatUint(s.Tasks, 10),
		envPrefix + "TASK_INDEX=" + strconv.FormatUint(uint64(index), 10),
	}, s.Env...)))
	t.Seed = m.seed(s, &t, index, entry)
	return t, nil
}

// CheckInput tells whether the index is the one that the manifest names, and whether
// every task of the first stage can be planned from it. It names up to 8 that can't.
func (m *Manifest) CheckInput(x *Index) error {
	if len(m.Stages) == 0 || m.Stages[0].Source.Kind != SourceIndex {
		return fmt.Errorf("job: input: the first stage takes none: %w", ErrPlan)
	}
	s := &m.Stages[0]
	if want := (Input{Root: s.Source.Index, Count: s.Tasks, Bytes: s.Source.Bytes}); x.Input() != want {
		return fmt.Errorf("job: input: the index is of %+v, the manifest of %+v: %w", x.Input(), want, ErrPlan)
	}
	// Arguments without braces fit every entry: MaxTaskArgs has room for a line.
	if !slices.ContainsFunc(s.Args, func(arg string) bool { return strings.Contains(arg, "{") }) {
		return nil
	}
	const most = 8
	var errs []error
	index := protocol.TaskIndex(0)
	for entry, err := range x.All(protocol.Range{Hi: protocol.TaskIndex(s.Tasks)}) {
		if err != nil {
			return err
		}
		if _, err := m.Task(0, index, entry); err != nil && len(errs) < most {
			errs = append(errs, err)
		}
		index++
	}
	return errors.Join(errs...)
}

// reads is the outputs that a reducer joins: fanIn consecutive ones, or all.
func (m *Manifest) reads(s *Stage, index protocol.TaskIndex) protocol.Range {
	if int(s.Source.Stage) >= len(m.Stages) {
		return protocol.Range{}
	}
	n, k := m.Stages[s.Source.Stage].Tasks, s.Source.FanIn
	if k == 0 {
		return protocol.Range{Hi: protocol.TaskIndex(n)}
	}
	lo := min(uint64(index)*k, n)
	return protocol.Range{Lo: protocol.TaskIndex(lo), Hi: protocol.TaskIndex(min(lo+k, n))}
}

// inputName chooses the piece's name in /in/ apart from the job's files and their
// directories.
func (m *Manifest) inputName(name string) string {
	base := path.Base(name)
	if name == "" || protocol.ValidName(base) != nil {
		base = pieceName
	}
	for i := 1; m.taken(base); i++ {
		base = fmt.Sprintf("%s-%d", pieceName, i)
	}
	return base
}

func (m *Manifest) taken(name string) bool {
	return slices.ContainsFunc(m.Files, func(f File) bool {
		first, _, _ := strings.Cut(f.Name, "/")
		return first == name
	})
}

// args makes the arguments of a task. Where a line is given and no argument asks for
// one of its fields, all fields come last, as xargs does.
func (s *Stage) args(index protocol.TaskIndex, entry Entry, inputName string) ([]string, error) {
	line := s.Source.Kind == SourceIndex && !entry.Root.Defined()
	var fields []string
	if line {
		fields = strings.Fields(entry.Line)
	}
	asked := false
	value := func(key string) (string, bool, error) {
		switch key {
		case "index":
			return strconv.FormatUint(uint64(index), 10), true, nil
		case "count":
			return strconv.FormatUint(s.Tasks, 10), true, nil
		case "input":
			if inputName == "" {
				return "", false, fmt.Errorf("an argument has {input}, but the task has no input file: leave it out or give an --input")
			}
			return inputDir + inputName, true, nil
		case "name":
			if line {
				return "", false, fmt.Errorf("an argument has {name}, but the task has no input file: leave it out or give an --input")
			}
			return entry.Name, true, nil
		}
		number, ok := fieldNumber(key)
		if !ok || !line {
			return "", false, nil
		}
		asked = true
		if number > len(fields) {
			return "", false, fmt.Errorf("an argument has {%d}, but line %q has %d fields: correct the line or the argument", number, shorten(entry.Line, maxQuoted), len(fields))
		}
		return fields[number-1], true, nil
	}
	args := []string{s.Program.Name}
	for _, arg := range s.Args {
		replaced, err := replace(arg, value)
		if err != nil {
			return nil, err
		}
		args = append(args, replaced)
	}
	if !asked {
		args = append(args, fields...)
	}
	bytes := 0
	for _, arg := range args {
		bytes += len(arg)
	}
	if bytes > MaxTaskArgs {
		return nil, fmt.Errorf("its arguments have %d bytes, at most %d: pass them in a file", bytes, MaxTaskArgs)
	}
	return args, nil
}

// replace puts values in the place of the {keys} that value knows; all other braces
// stay as they are. What a value brings in is not looked at again.
func replace(s string, value func(key string) (string, bool, error)) (string, error) {
	var b strings.Builder
	for {
		open := strings.IndexByte(s, '{')
		if open < 0 {
			b.WriteString(s)
			return b.String(), nil
		}
		b.WriteString(s[:open])
		s = s[open:]
		end := strings.IndexAny(s[1:], "{}")
		if end < 0 || s[1+end] != '}' {
			b.WriteByte('{')
			s = s[1:]
			continue
		}
		v, known, err := value(s[1 : 1+end])
		if err != nil {
			return "", err
		}
		if !known {
			v = s[:end+2]
		}
		b.WriteString(v)
		s = s[end+2:]
	}
}

// fieldNumber reads a field's number, 1 or more, in its only form.
func fieldNumber(key string) (int, bool) {
	n, err := strconv.ParseUint(key, 10, 16)
	return int(n), err == nil && n > 0 && strconv.FormatUint(n, 10) == key
}

// seed hashes the task's name: program, arguments, environment, inputs, index.
func (m *Manifest) seed(s *Stage, t *Task, index protocol.TaskIndex, entry Entry) [32]byte {
	var b []byte
	number := func(n uint64) { b = binary.AppendUvarint(b, n) }
	text := func(v string) {
		number(uint64(len(v)))
		b = append(b, v...)
	}
	list := func(l []string) {
		number(uint64(len(l)))
		for _, v := range l {
			text(v)
		}
	}
	root := func(c cid.Cid) { text(c.KeyString()) }

	text(seedDomain)
	root(s.Program.Root)
	list(t.Args)
	list(t.Env)
	root(entry.Root)
	number(uint64(len(m.Files)))
	for _, f := range m.Files {
		text(f.Name)
		root(f.Root)
	}
	number(uint64(index))
	return sha256.Sum256(b)
}

// Domains keep the hashes of this package apart from one another.
const (
	seedDomain     = "/mesh/job/seed/1"
	manifestDomain = "/mesh/job/input/manifest/1"
	sealsDomain    = "/mesh/job/input/seals/1"
)

// InputKey is the key under which a stage's state stands. Of a first stage it is a hash
// of the job's ID, and sourceTopRoots is empty; of another it is a hash of the roots of
// the top seals of the stages that it reads, in the order of their numbers (there is
// one today). It is zero, "none", where the roots are not as many as the stage reads.
func (s *Signed) InputKey(stage protocol.StageIndex, sourceTopRoots []cid.Cid) protocol.InputKey {
	if int(stage) >= len(s.Manifest.Stages) {
		return protocol.InputKey{}
	}
	h := sha256.New()
	if s.Manifest.Stages[stage].Source.Kind != SourceOutputs {
		if len(sourceTopRoots) != 0 {
			return protocol.InputKey{}
		}
		h.Write([]byte(manifestDomain))
		h.Write([]byte(s.ID))
		return protocol.InputKey(h.Sum(nil))
	}
	if len(sourceTopRoots) != 1 || !sourceTopRoots[0].Defined() {
		return protocol.InputKey{}
	}
	h.Write([]byte(sealsDomain))
	h.Write(sourceTopRoots[0].Bytes())
	return protocol.InputKey(h.Sum(nil))
}
