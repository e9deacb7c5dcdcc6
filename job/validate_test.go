package job

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// Each case breaks one thing and must get a fault of that field, with that reason.
var faultCases = []struct {
	name, field, reason string
	change              func(m *Manifest)
}{
	{"mesh", "Mesh", "1 to", func(m *Manifest) { m.Mesh = "" }},
	{"mesh character", "Mesh", "has '/'", func(m *Manifest) { m.Mesh = "a/b" }},
	{"nonce", "Nonce", "zeros", func(m *Manifest) { m.Nonce = [16]byte{} }},
	{"long name", "Name", "at most 128", func(m *Manifest) { m.Name = strings.Repeat("x", 129) }},
	{"name with control", "Name", "control", func(m *Manifest) { m.Name = "a\x1b[2J" }},
	{"name not UTF-8", "Name", "UTF-8", func(m *Manifest) { m.Name = "\xff" }},
	{"no owner", "Owner", "no peer ID", func(m *Manifest) { m.Owner = "" }},
	{"owner without key", "Owner", "key", func(m *Manifest) { m.Owner = protocol.PeerID("\x12\x20" + strings.Repeat("x", 32)) }},
	{"submitter", "Submitter", "key", func(m *Manifest) { m.Submitter = "garbage" }},
	{"created fraction", "Created", "fraction", func(m *Manifest) { m.Created = m.Created.Add(time.Microsecond) }},
	{"created before 1970", "Created", "1970", func(m *Manifest) { m.Created = time.UnixMilli(-1) }},
	{"expires before created", "Expires", "not after", func(m *Manifest) { m.Expires = m.Created }},
	{"expires fraction", "Expires", "fraction", func(m *Manifest) { m.Expires = m.Expires.Add(time.Nanosecond) }},
	{"expires late", "Expires", "at most", func(m *Manifest) { m.Expires = m.Created.Add(MaxLifetime + time.Millisecond) }},
	{"retention", "Retention", "from 0", func(m *Manifest) { m.Retention = -time.Second }},
	{"retention long", "Retention", "from 0", func(m *Manifest) { m.Retention = MaxRetention + time.Second }},
	{"retention fraction", "Retention", "fraction", func(m *Manifest) { m.Retention = time.Microsecond }},
	{"groups", "Groups", "must be 64", func(m *Manifest) { m.Groups = 2 }},
	{"replicas", "Replicas", "from 0 to 16", func(m *Manifest) { m.Replicas = 17 }},
	{"negative replicas", "Replicas", "from 0 to 16", func(m *Manifest) { m.Replicas = -1 }},
	{"retries", "Retries", "from 0", func(m *Manifest) { m.Retries = -1 }},
	{"many retries", "Retries", "from 0", func(m *Manifest) { m.Retries = MaxRetries + 1 }},
	{"priority", "Priority", "-100 to 100", func(m *Manifest) { m.Priority = 101 }},
	{"low priority", "Priority", "-100 to 100", func(m *Manifest) { m.Priority = -101 }},
	{"many files", "Files", "at most 256", func(m *Manifest) { m.Files = make([]File, 257) }},
	{"file name", "Files[0].Name", "..", func(m *Manifest) { m.Files[0].Name = "../model" }},
	{"file root", "Files[0].Root", "no CID", func(m *Manifest) { m.Files[0].Root = cid.Undef }},
	{"file codec", "Files[0].Root", "codec", func(m *Manifest) { m.Files[0].Root = m.Stages[0].Source.Index }},
	{"file size", "Files[0].Size", "63 bits", func(m *Manifest) { m.Files[0].Size = math.MaxUint64 }},
	{"file order", "Files[1].Name", "after", func(m *Manifest) { m.Files[0], m.Files[1] = m.Files[1], m.Files[0] }},
	{"file twice", "Files[1].Name", "twice", func(m *Manifest) { m.Files[1].Name = m.Files[0].Name }},
	{"file as directory", "Files[1].Name", "directory", func(m *Manifest) { m.Files[1].Name = m.Files[0].Name + "/a/b" }},
	{"no stages", "Stages", "empty", func(m *Manifest) { m.Stages = nil }},
	{"many stages", "Stages", "at most 40", func(m *Manifest) { m.Stages = make([]Stage, 41) }},
	{"stage name", "Stages[0].Name", "letters", func(m *Manifest) { m.Stages[0].Name = "a b" }},
	{"stage name twice", "Stages[1].Name", "twice", func(m *Manifest) { m.Stages[1].Name = "map" }},
	{"stage unread", "Stages[1]", "no later stage", func(m *Manifest) {
		m.Stages[2].Source.Stage = 0
		m.Stages[2].Tasks = 18
	}},
	{"program name", "Stages[0].Program.Name", "empty", func(m *Manifest) { m.Stages[0].Program.Name = "" }},
	{"program path", "Stages[0].Program.Name", "path", func(m *Manifest) { m.Stages[0].Program.Name = "a/b" }},
	{"program root", "Stages[0].Program.Root", "no CID", func(m *Manifest) { m.Stages[0].Program.Root = cid.Undef }},
	{"program CIDv0", "Stages[0].Program.Root", "CIDv1", func(m *Manifest) {
		m.Stages[0].Program.Root = cid.NewCidV0(m.Stages[0].Program.Root.Hash())
	}},
	{"program empty", "Stages[0].Program.Size", "is 0", func(m *Manifest) { m.Stages[0].Program.Size = 0 }},
	{"program large", "Stages[0].Program.Size", "at most 67108864", func(m *Manifest) { m.Stages[0].Program.Size = 64<<20 + 1 }},
	{"many arguments", "Stages[0].Args", "at most 1024", func(m *Manifest) { m.Stages[0].Args = make([]string, 1025) }},
	{"long arguments", "Stages[0].Args", "at most 65536", func(m *Manifest) { m.Stages[0].Args = []string{strings.Repeat("x", 65537)} }},
	{"argument zero byte", "Stages[0].Args[0]", "zero byte", func(m *Manifest) { m.Stages[0].Args[0] = "a\x00" }},
	{"argument not UTF-8", "Stages[0].Args[0]", "UTF-8", func(m *Manifest) { m.Stages[0].Args[0] = "\xff" }},
	{"name in reduce", "Stages[1].Args[0]", "{name}", func(m *Manifest) { m.Stages[1].Args[0] = "x{name}" }},
	{"input in array", "Stages[0].Args[1]", "{input}", func(m *Manifest) {
		m.Stages[0].Source = Source{Kind: SourceArray}
		m.Stages[0].Args[1] = "{input}"
	}},
	{"many variables", "Stages[0].Env", "at most 256", func(m *Manifest) { m.Stages[0].Env = make([]string, 257) }},
	{"long variables", "Stages[0].Env", "at most 65536", func(m *Manifest) { m.Stages[0].Env = []string{"A=" + strings.Repeat("x", 65537)} }},
	{"variable form", "Stages[0].Env[0]", "'='", func(m *Manifest) { m.Stages[0].Env[0] = "AB" }},
	{"variable name", "Stages[0].Env[0]", "letters", func(m *Manifest) { m.Stages[0].Env[0] = "1A=b" }},
	{"variable reserved", "Stages[0].Env[2]", "own", func(m *Manifest) { m.Stages[0].Env[2] = "MESH_X=1" }},
	{"variable value", "Stages[0].Env[0]", "text", func(m *Manifest) { m.Stages[0].Env[0] = "A=\x00" }},
	{"variable order", "Stages[0].Env[1]", "order", func(m *Manifest) { m.Stages[0].Env[0] = "Z=1" }},
	{"variable twice", "Stages[0].Env[1]", "twice", func(m *Manifest) { m.Stages[0].Env[0] = "EMPTY=" + ""; m.Stages[0].Env[1] = "EMPTY=1" }},
	{"no memory", "Stages[0].Limits.Memory", "from", func(m *Manifest) { m.Stages[0].Limits.Memory = 0 }},
	{"much memory", "Stages[0].Limits.Memory", "from", func(m *Manifest) { m.Stages[0].Limits.Memory = 4<<30 + 1 }},
	{"disk", "Stages[0].Limits.Disk", "at most", func(m *Manifest) { m.Stages[0].Limits.Disk = 1<<40 + 1 }},
	{"output", "Stages[0].Limits.Output", "at most", func(m *Manifest) { m.Stages[0].Limits.Output = 1<<40 + 1 }},
	{"log", "Stages[0].Limits.Log", "at most", func(m *Manifest) { m.Stages[0].Limits.Log = 1 << 40 }},
	{"timeout", "Stages[0].Limits.Timeout", "from", func(m *Manifest) { m.Stages[0].Limits.Timeout = 0 }},
	{"timeout long", "Stages[0].Limits.Timeout", "from", func(m *Manifest) { m.Stages[0].Limits.Timeout = 366 * 24 * time.Hour }},
	{"timeout fraction", "Stages[0].Limits.Timeout", "fraction", func(m *Manifest) { m.Stages[0].Limits.Timeout = 1500 * time.Microsecond }},
	{"many statuses", "Stages[0].OkExit", "at most", func(m *Manifest) { m.Stages[0].OkExit = make([]int32, 257) }},
	{"status order", "Stages[0].OkExit", "ascending", func(m *Manifest) { m.Stages[0].OkExit = []int32{1, 0} }},
	{"status twice", "Stages[0].OkExit", "ascending", func(m *Manifest) { m.Stages[0].OkExit = []int32{0, 1, 1} }},
	{"status default", "Stages[0].OkExit", "empty list", func(m *Manifest) { m.Stages[0].OkExit = []int32{0} }},
	{"many tasks", "Stages[0].Tasks", "at most", func(m *Manifest) { m.Stages[0].Tasks = protocol.MaxTasks + 1 }},
	{"no index", "Stages[0].Source.Index", "no CID", func(m *Manifest) { m.Stages[0].Source.Index = cid.Undef }},
	{"index codec", "Stages[0].Source.Index", "codec", func(m *Manifest) { m.Stages[0].Source.Index = m.Files[0].Root }},
	{"index bytes", "Stages[0].Source.Bytes", "63 bits", func(m *Manifest) { m.Stages[0].Source.Bytes = math.MaxUint64 }},
	{"split without word", "Stages[0].Source.Split", "word", func(m *Manifest) { m.Stages[0].Source.Split = ":8" }},
	{"split without size", "Stages[0].Source.Split", "size", func(m *Manifest) { m.Stages[0].Source.Split = "lines:" }},
	{"split not canonical", "Stages[0].Source.Split", "size", func(m *Manifest) { m.Stages[0].Source.Split = "lines:08" }},
	{"split with unit", "Stages[0].Source.Split", "size", func(m *Manifest) { m.Stages[0].Source.Split = "lines:8MiB" }},
	{"split with control", "Stages[0].Source.Split", "word", func(m *Manifest) { m.Stages[0].Source.Split = "file\n" }},
	{"long split", "Stages[0].Source.Split", "at most 32", func(m *Manifest) { m.Stages[0].Source.Split = strings.Repeat("x", 33) }},
	{"split of outputs", "Stages[1].Source", "no use", func(m *Manifest) { m.Stages[1].Source.Split = "file" }},
	{"fan-in 1", "Stages[1].Source.FanIn", "reduces nothing", func(m *Manifest) { m.Stages[1].Source.FanIn = 1 }},
	{"own outputs", "Stages[1].Source.Stage", "earlier", func(m *Manifest) { m.Stages[1].Source.Stage = 1 }},
	{"later outputs", "Stages[1].Source.Stage", "earlier", func(m *Manifest) { m.Stages[1].Source.Stage = 9 }},
	{"reducers", "Stages[1].Tasks", "must be 18", func(m *Manifest) { m.Stages[1].Tasks = 17 }},
	{"tree cut short", "Stages[2].Tasks", "ends with one", func(m *Manifest) { m.Stages = m.Stages[:3] }},
	{"source kind", "Stages[0].Source.Kind", "none", func(m *Manifest) { m.Stages[0].Source = Source{Kind: 9} }},
	{"stray source", "Stages[0].Source", "no use", func(m *Manifest) { m.Stages[0].Source.FanIn = 2 }},
}

// Which rules there are is for who cuts the input.
func TestValidateTakesEverySplit(t *testing.T) {
	for _, rule := range []string{"", "none", "file", "lines:1", "bytes:68719476736", "fasta:8388608", "separator"} {
		m := build(t, fullSpec(t))
		m.Stages[0].Source.Split = rule
		if err := m.Validate(); err != nil {
			t.Errorf("%q: %v", rule, err)
		}
	}
}

func TestValidateNamesEachFault(t *testing.T) {
	for _, c := range faultCases {
		m := build(t, fullSpec(t))
		c.change(&m)
		found := false
		for _, f := range faultsOf(t, m.Validate()) {
			found = found || f.Field == c.field && strings.Contains(f.Reason, c.reason)
			if f.Remedy == "" {
				t.Errorf("%s: no remedy in %v", c.name, f)
			}
		}
		if !found {
			t.Errorf("%s: no fault of %s with %q in: %v", c.name, c.field, c.reason, m.Validate())
		}
	}
}

func faultsOf(t *testing.T, err error) []*Fault {
	t.Helper()
	var list []*Fault
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("no joined faults: %v", err)
	}
	for _, e := range joined.Unwrap() {
		var f *Fault
		if !errors.As(e, &f) {
			t.Fatalf("no fault: %v", e)
		}
		list = append(list, f)
	}
	return list
}

func TestValidateReportsAllAtOnce(t *testing.T) {
	m := build(t, fullSpec(t))
	m.Mesh, m.Retries, m.Stages[0].Limits.Memory, m.Stages[2].Name = "", -1, 0, ""
	if got := faultsOf(t, m.Validate()); len(got) != 4 {
		t.Errorf("%d faults, want 4: %v", len(got), m.Validate())
	}
}

func TestValidateBoundsItsReport(t *testing.T) {
	m := build(t, fullSpec(t))
	m.Stages[0].Args = nil
	for i := range MaxArgs {
		m.Stages[0].Args = append(m.Stages[0].Args, fmt.Sprintf("\xff%d%s", i, strings.Repeat("y", 1000)))
	}
	if got := len(m.Validate().Error()); got > maxFaults*(maxReason+200) {
		t.Errorf("a report of %d bytes", got)
	}
}

func TestValidateRefusesAnotherVersion(t *testing.T) {
	m := build(t, fullSpec(t))
	m.Version = 0
	if err := m.Validate(); !errors.Is(err, ErrVersion) {
		t.Errorf("got %v", err)
	}
}
