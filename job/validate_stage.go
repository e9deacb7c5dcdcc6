package job

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/compute-mesh/mesh/protocol"
)

func (m *Manifest) validateStages(f *faults) {
	f.unless(len(m.Stages) > 0, "Stages", "give a program with --map", "is empty")
	if len(m.Stages) > protocol.MaxStages {
		f.unless(false, "Stages", "choose a larger --fan-in", "has %d stages, at most %d", len(m.Stages), protocol.MaxStages)
		return
	}
	names := make(map[string]bool, len(m.Stages))
	read := make([]bool, len(m.Stages))
	for i := range m.Stages {
		s := &m.Stages[i]
		field := fmt.Sprintf("Stages[%d]", i)
		f.unless(validStageName(s.Name), field+".Name", "use Build", "%q is not 1 to %d letters, digits, '-' or '_'", s.Name, MaxStageName)
		f.unless(!names[s.Name], field+".Name", "use Build", "%q is there twice", s.Name)
		names[s.Name] = true
		validateProgram(f, field+".Program", s.Program)
		validateArgs(f, field, s)
		validateEnv(f, field+".Env", s.Env)
		validateLimits(f, field+".Limits", s.Limits)
		validateOkExit(f, field+".OkExit", s.OkExit)
		m.validateSource(f, field, protocol.StageIndex(i))
		if s.Source.Kind == SourceOutputs && int(s.Source.Stage) < i {
			read[s.Source.Stage] = true
		}
	}
	for i := range len(m.Stages) - 1 {
		f.unless(read[i], fmt.Sprintf("Stages[%d]", i), "use Build", "is read by no later stage, so that its outputs are for nobody")
	}
}

// validateSource wants the number of tasks to be what the plan makes of the source.
func (m *Manifest) validateSource(f *faults, field string, i protocol.StageIndex) {
	s := &m.Stages[i]
	src := s.Source
	f.unless(s.Tasks <= protocol.MaxTasks, field+".Tasks", "make the pieces larger", "is %d, at most %d", s.Tasks, protocol.MaxTasks)
	stray := Source{Kind: src.Kind}
	switch src.Kind {
	case SourceArray:
	case SourceIndex:
		stray.Index, stray.Bytes, stray.Split = src.Index, src.Bytes, src.Split
		f.unless(src.Bytes <= math.MaxInt64, field+".Source.Bytes", "build the index with an IndexWriter", "%d does not fit 63 bits", src.Bytes)
		f.check(checkLink(src.Index, codecDagCBOR), field+".Source.Index", "build it with an IndexWriter")
		f.unless(validSplit(src.Split), field+".Source.Split", "write it as in lines:8388608",
			"%q is not a word, with a size in bytes or without, of at most %d bytes", src.Split, MaxSplit)
	case SourceOutputs:
		stray.Stage, stray.FanIn = src.Stage, src.FanIn
		f.unless(src.FanIn != 1, field+".Source.FanIn", "choose --fan-in 2 or more", "is 1, which reduces nothing")
		if src.Stage >= i {
			f.unless(false, field+".Source.Stage", "use Build", "is %d, must be an earlier stage than %d", src.Stage, i)
			break
		}
		want := ReduceTasks(m.Stages[src.Stage].Tasks, src.FanIn)
		f.unless(s.Tasks == want, field+".Tasks", "use Build", "is %d, must be %d over %d outputs with fan-in %d",
			s.Tasks, want, m.Stages[src.Stage].Tasks, src.FanIn)
		f.unless(s.Tasks == 1 || int(i) != len(m.Stages)-1, field+".Tasks", "use Build",
			"is %d, but a reduction ends with one task", s.Tasks)
	default:
		f.unless(false, field+".Source.Kind", "update mesh", "is %d, which is none", src.Kind)
	}
	f.unless(src == stray, field+".Source", "leave them empty", "has fields that its kind has no use for")
}

func validateProgram(f *faults, field string, p File) {
	const rename = "rename the file"
	f.check(protocol.ValidName(p.Name), field+".Name", rename)
	f.unless(!strings.Contains(p.Name, "/"), field+".Name", rename, "%q is a path, not a file name", p.Name)
	f.check(checkLink(p.Root, codecRaw, codecDagPB), field+".Root", "import the program first")
	f.unless(p.Size > 0, field+".Size", "build the program again", "is 0")
	f.unless(p.Size <= MaxProgram, field+".Size", "strip the program (wasm-opt, -ldflags='-s -w') or move its data to --file",
		"is %d bytes, at most %d", p.Size, MaxProgram)
}

func validateArgs(f *faults, field string, s *Stage) {
	at := field + ".Args"
	if len(s.Args) > MaxArgs {
		f.unless(false, at, "pass a file of arguments with --file", "has %d, at most %d", len(s.Args), MaxArgs)
		return
	}
	bytes := 0
	for i, arg := range s.Args {
		bytes += len(arg)
		arg1 := fmt.Sprintf("%s[%d]", at, i)
		f.unless(utf8.ValidString(arg), arg1, "write it in UTF-8", "%q is no UTF-8", arg)
		f.unless(!strings.Contains(arg, "\x00"), arg1, "leave it out", "has a zero byte, which ends an argument")
		for _, word := range meaningless(s.Source.Kind) {
			f.unless(!strings.Contains(arg, word), arg1, "leave it out or give an --input",
				"has %s, but a task of stage %q has none", word, s.Name)
		}
	}
	f.unless(bytes <= MaxArgBytes, at, "pass a file of arguments with --file", "has %d bytes, at most %d", bytes, MaxArgBytes)
}

// meaningless is the replacements that can have no value in any task with such a source.
func meaningless(kind SourceKind) []string {
	switch kind {
	case SourceArray:
		return []string{"{input}", "{name}"}
	case SourceOutputs:
		return []string{"{name}"}
	}
	return nil
}

func validateEnv(f *faults, field string, env []string) {
	if len(env) > MaxEnv {
		f.unless(false, field, "pass a file with --file", "has %d, at most %d", len(env), MaxEnv)
		return
	}
	bytes, last := 0, ""
	for i, pair := range env {
		bytes += len(pair)
		at := fmt.Sprintf("%s[%d]", field, i)
		key, value, ok := strings.Cut(pair, "=")
		f.unless(ok && validKey(key), at, "write it as KEY=VALUE", "%q has no name of letters, digits and '_' before a '='", pair)
		f.unless(!strings.HasPrefix(key, envPrefix), at, "choose another name", "%q is the mesh's own", key)
		f.unless(utf8.ValidString(value) && !strings.Contains(value, "\x00"), at, "write it in UTF-8 without zero bytes", "the value %q is no text", value)
		f.unless(i == 0 || env[i-1] < pair, at, "use Build", "%q is not in byte order", pair)
		f.unless(i == 0 || key != last, at, "give it once", "%q is there twice", key)
		last = key
	}
	f.unless(bytes <= MaxEnvBytes, field, "pass a file with --file", "has %d bytes, at most %d", bytes, MaxEnvBytes)
}

func validateLimits(f *faults, field string, l Limits) {
	f.unless(l.Memory >= MinMemory && l.Memory <= MaxMemory, field+".Memory", "choose --memory in that range",
		"is %d bytes, must be from %d to %d", l.Memory, MinMemory, MaxMemory)
	f.unless(l.Disk <= MaxDisk, field+".Disk", "choose less", "is %d bytes, at most %d", l.Disk, MaxDisk)
	f.unless(l.Output <= MaxDisk, field+".Output", "choose less", "is %d bytes, at most %d", l.Output, MaxDisk)
	f.unless(l.Log <= MaxLog, field+".Log", "choose less", "is %d bytes, at most %d", l.Log, MaxLog)
	f.unless(l.Timeout >= MinTimeout && l.Timeout <= MaxLifetime, field+".Timeout", "choose --timeout in that range",
		"is %s, must be from %s to %s", l.Timeout, MinTimeout, MaxLifetime)
	f.unless(l.Timeout%time.Millisecond == 0, field+".Timeout", "round it to whole milliseconds", "%s has a fraction of a millisecond", l.Timeout)
}

func validateOkExit(f *faults, field string, ok []int32) {
	if len(ok) > MaxOkExit {
		f.unless(false, field, "list fewer", "has %d, at most %d", len(ok), MaxOkExit)
		return
	}
	f.unless(slices.IsSorted(ok) && len(slices.Compact(slices.Clone(ok))) == len(ok), field, "use Build", "%v is not ascending", ok)
	f.unless(!slices.Equal(ok, []int32{0}), field, "leave it empty", "[0] is what an empty list means")
}

func validStageName(name string) bool {
	return name != "" && len(name) <= MaxStageName &&
		!strings.ContainsFunc(name, func(r rune) bool { return !isWordRune(r) && r != '-' })
}

// validSplit checks the form alone. Which rules there are is for who cuts the input: no task depends on it, so that a
// new rule is nothing for an older peer to refuse.
func validSplit(rule string) bool {
	word, size, sized := strings.Cut(rule, ":")
	letter := func(r rune) bool { return r >= 'a' && r <= 'z' }
	digit := func(r rune) bool { return r >= '0' && r <= '9' }
	return rule == "" || len(rule) <= MaxSplit && word != "" && strings.TrimFunc(word, letter) == "" &&
		(!sized || size != "" && size[0] != '0' && strings.TrimFunc(size, digit) == "")
}

func validKey(key string) bool {
	return key != "" && (key[0] < '0' || key[0] > '9') &&
		!strings.ContainsFunc(key, func(r rune) bool { return !isWordRune(r) })
}
