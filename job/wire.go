package job

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// The structs below are the schema's types as they stand in a block: integers are
// int64, times are Unix milliseconds, durations milliseconds. Field order is the
// schema's.

type wireSigned struct {
	Manifest  wireManifest `cbor:"manifest"`
	Signature []byte       `cbor:"signature"`
}

type wireManifest struct {
	Version   int64       `cbor:"version"`
	Mesh      string      `cbor:"mesh"`
	Nonce     []byte      `cbor:"nonce"`
	Name      string      `cbor:"name"`
	Owner     []byte      `cbor:"owner"`
	Submitter []byte      `cbor:"submitter"`
	Created   int64       `cbor:"created"`
	Expires   int64       `cbor:"expires"`
	Retention int64       `cbor:"retention"`
	Groups    int64       `cbor:"groups"`
	Replicas  int64       `cbor:"replicas"`
	Priority  int64       `cbor:"priority"`
	Retries   int64       `cbor:"retries"`
	KeepGoing bool        `cbor:"keepGoing"`
	Files     []wireFile  `cbor:"files"`
	Stages    []wireStage `cbor:"stages"`
}

type wireFile struct {
	Name string   `cbor:"name"`
	Root wireLink `cbor:"root"`
	Size int64    `cbor:"size"`
}

type wireStage struct {
	Name             string     `cbor:"name"`
	Program          wireFile   `cbor:"program"`
	Args             []string   `cbor:"args"`
	Env              []string   `cbor:"env"`
	Tasks            int64      `cbor:"tasks"`
	Source           wireSource `cbor:"source"`
	Limits           wireLimits `cbor:"limits"`
	OkExit           []int64    `cbor:"okExit"`
	Nondeterministic bool       `cbor:"nondeterministic"`
}

// wireSource is a union: one of the pointers is set.
type wireSource struct {
	Array   *wireSourceArray   `cbor:"array,omitempty"`
	Index   *wireSourceIndex   `cbor:"index,omitempty"`
	Outputs *wireSourceOutputs `cbor:"outputs,omitempty"`
}

type wireSourceArray struct{}

type wireSourceIndex struct {
	Root  wireLink `cbor:"root"`
	Bytes int64    `cbor:"bytes"`
	Split string   `cbor:"split"`
}

type wireSourceOutputs struct {
	Stage int64 `cbor:"stage"`
	FanIn int64 `cbor:"fanIn"`
}

type wireLimits struct {
	Memory  int64 `cbor:"memory"`
	Disk    int64 `cbor:"disk"`
	Output  int64 `cbor:"output"`
	Log     int64 `cbor:"log"`
	Timeout int64 `cbor:"timeout"`
}

var (
	signedType   = wireType[wireSigned]{"SignedManifest", MaxManifest}
	manifestType = wireType[wireManifest]{"Manifest", MaxManifest}
)

// manifestBytes is the canonical encoding of m: what the owner signs.
func manifestBytes(m *Manifest) (*wireManifest, []byte, error) {
	w, err := m.wire()
	if err != nil {
		return nil, nil, err
	}
	data, err := manifestType.encode(w)
	return w, data, err
}

// wire fails only where a number does not fit the wire's, so that nothing is cut in
// silence.
func (m *Manifest) wire() (*wireManifest, error) {
	var n narrow
	w := &wireManifest{
		Version: n.size("Version", m.Version), Mesh: m.Mesh, Nonce: m.Nonce[:], Name: m.Name,
		Owner: []byte(m.Owner), Submitter: []byte(m.Submitter),
		Created: m.Created.UnixMilli(), Expires: m.Expires.UnixMilli(),
		Retention: m.Retention.Milliseconds(),
		Groups:    int64(m.Groups), Replicas: int64(m.Replicas), Priority: int64(m.Priority),
		Retries: int64(m.Retries), KeepGoing: m.KeepGoing,
	}
	for _, f := range m.Files {
		w.Files = append(w.Files, n.file(f))
	}
	for i := range m.Stages {
		w.Stages = append(w.Stages, n.stage(&m.Stages[i]))
	}
	return w, n.err
}

// narrow turns the domain's numbers into the wire's and keeps the first that does
// not fit.
type narrow struct{ err error }

func (n *narrow) size(field string, v uint64) int64 {
	if v > math.MaxInt64 && n.err == nil {
		n.err = fmt.Errorf("job: manifest: %s: %d does not fit 63 bits", field, v)
	}
	return int64(v)
}

func (n *narrow) file(f File) wireFile {
	return wireFile{Name: f.Name, Root: wireLink(f.Root), Size: n.size("File.Size", f.Size)}
}

func (n *narrow) stage(s *Stage) wireStage {
	w := wireStage{
		Name: s.Name, Program: n.file(s.Program), Args: s.Args, Env: s.Env,
		Tasks:            n.size("Stage.Tasks", s.Tasks),
		Nondeterministic: s.Nondeterministic,
		Limits: wireLimits{
			Memory:  n.size("Limits.Memory", s.Limits.Memory),
			Disk:    n.size("Limits.Disk", s.Limits.Disk),
			Output:  n.size("Limits.Output", s.Limits.Output),
			Log:     n.size("Limits.Log", s.Limits.Log),
			Timeout: s.Limits.Timeout.Milliseconds(),
		},
	}
	for _, status := range s.OkExit {
		w.OkExit = append(w.OkExit, int64(status))
	}
	switch s.Source.Kind {
	case SourceArray:
		w.Source.Array = &wireSourceArray{}
	case SourceIndex:
		w.Source.Index = &wireSourceIndex{
			Root: wireLink(s.Source.Index), Bytes: n.size("Source.Bytes", s.Source.Bytes), Split: s.Source.Split,
		}
	case SourceOutputs:
		w.Source.Outputs = &wireSourceOutputs{
			Stage: int64(s.Source.Stage), FanIn: n.size("Source.FanIn", s.Source.FanIn),
		}
	default:
		if n.err == nil {
			n.err = fmt.Errorf("job: manifest: Source.Kind: %d is none", s.Source.Kind)
		}
	}
	return w
}

// domain is wire's inverse. What does not fit the domain's types is refused here; what
// has no sense there is for Validate.
func (w *wireManifest) domain() (Manifest, error) {
	var n widen
	m := Manifest{
		Version: n.size("version", w.Version), Mesh: w.Mesh, Name: w.Name,
		Owner: protocol.PeerID(w.Owner), Submitter: protocol.PeerID(w.Submitter),
		Created: n.time("created", w.Created), Expires: n.time("expires", w.Expires),
		Retention: n.duration("retention", w.Retention),
		Groups:    int(n.int32("groups", w.Groups)), Replicas: int(n.int32("replicas", w.Replicas)),
		Priority: n.int32("priority", w.Priority), Retries: int(n.int32("retries", w.Retries)),
		KeepGoing: w.KeepGoing,
	}
	if copy(m.Nonce[:], w.Nonce) != len(m.Nonce) || len(w.Nonce) != len(m.Nonce) {
		n.fail("nonce", "is not of 16 bytes")
	}
	for _, f := range w.Files {
		m.Files = append(m.Files, n.file(f))
	}
	for i := range w.Stages {
		m.Stages = append(m.Stages, n.stage(&w.Stages[i]))
	}
	return m, errors.Join(n.errs...)
}

// widen turns the wire's numbers into the domain's and collects what does not fit.
type widen struct{ errs []error }

func (n *widen) fail(field, reason string) {
	if len(n.errs) < maxFaults {
		n.errs = append(n.errs, fmt.Errorf("%s %s", field, reason))
	}
}

func (n *widen) size(field string, v int64) uint64 {
	if v < 0 {
		n.fail(field, "is negative")
		return 0
	}
	return uint64(v)
}

func (n *widen) int32(field string, v int64) int32 {
	if v < math.MinInt32 || v > math.MaxInt32 {
		n.fail(field, "does not fit 32 bits")
		return 0
	}
	return int32(v)
}

// maxMilli keeps durations in milliseconds within a time.Duration.
const maxMilli = math.MaxInt64 / int64(time.Millisecond)

func (n *widen) duration(field string, ms int64) time.Duration {
	if ms < 0 || ms > maxMilli {
		n.fail(field, "is negative or too long")
		return 0
	}
	return time.Duration(ms) * time.Millisecond
}

func (n *widen) time(field string, ms int64) time.Time {
	if ms < 0 || ms > maxMilli {
		n.fail(field, "is no time between the years 1970 and 2262")
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func (n *widen) file(f wireFile) File {
	return File{Name: f.Name, Root: cid.Cid(f.Root), Size: n.size("size of file", f.Size)}
}

func (n *widen) stage(w *wireStage) Stage {
	s := Stage{
		Name: w.Name, Program: n.file(w.Program), Args: w.Args, Env: w.Env,
		Tasks: n.size("tasks", w.Tasks), Nondeterministic: w.Nondeterministic,
		Limits: Limits{
			Memory: n.size("memory", w.Limits.Memory), Disk: n.size("disk", w.Limits.Disk),
			Output: n.size("output", w.Limits.Output), Log: n.size("log", w.Limits.Log),
			Timeout: n.duration("timeout", w.Limits.Timeout),
		},
	}
	for _, status := range w.OkExit {
		s.OkExit = append(s.OkExit, n.int32("okExit", status))
	}
	if err := oneOf(w.Source.Array != nil, w.Source.Index != nil, w.Source.Outputs != nil); err != nil {
		n.fail("source", err.Error())
	}
	switch {
	case w.Source.Index != nil:
		s.Source = Source{
			Kind: SourceIndex, Index: cid.Cid(w.Source.Index.Root), Bytes: n.size("bytes", w.Source.Index.Bytes), Split: w.Source.Index.Split,
		}
	case w.Source.Outputs != nil:
		s.Source = Source{
			Kind: SourceOutputs, FanIn: n.size("fanIn", w.Source.Outputs.FanIn),
			Stage: protocol.StageIndex(n.int32("stage", w.Source.Outputs.Stage)),
		}
		if w.Source.Outputs.Stage < 0 {
			n.fail("stage", "is negative")
		}
	default:
		s.Source = Source{Kind: SourceArray}
	}
	return s
}
