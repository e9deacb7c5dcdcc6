package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/node/api"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
)

// standardInput is what names it in a flag.
const standardInput = "-"

// check understands the flags: all that can be refused is refused here, before anything
// is asked of meshd.
func (f *submitFlags) check(cmd *cobra.Command, args []string) (*submission, error) {
	set := cmd.Flags().Changed
	if n := cmd.ArgsLenAtDash(); len(args) > 0 && n != 0 {
		return nil, usage("unexpected argument %q", args[0]).
			WithAdvice("put the program's arguments into --map, or after --")
	}
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON && f.output == standardOutput {
		return nil, usage("--json and -o - both want standard output").WithAdvice("write the results to a file or a directory")
	}
	if err := f.combinations(set); err != nil {
		return nil, err
	}
	s := &submission{detach: f.detach}
	for _, step := range []func(*submission) error{
		func(s *submission) error { return f.programs(s, args) },
		f.policy, f.environment, f.jobFiles, f.input, f.destination,
	} {
		if err := step(s); err != nil {
			return nil, err
		}
	}
	if set("retries") {
		s.request.Retries = &f.retries
	}
	if set("replicas") {
		s.request.Replicas = &f.replicas
	}
	return s, nil
}

// combinations refuses flags that do not go together.
func (f *submitFlags) combinations(set func(string) bool) error {
	var sources []string
	for _, name := range []string{"input", "array", "args-from"} {
		if set(name) {
			sources = append(sources, "--"+name)
		}
	}
	stdin := f.argsFrom == standardInput
	for _, in := range f.inputs {
		if in == standardInput && stdin {
			return usage("standard input is given twice").WithAdvice("give - once")
		}
		stdin = stdin || in == standardInput
	}
	switch {
	case f.mapper == "":
		return usage("no program").WithAdvice("give one with --map 'PROGRAM.wasm ARGUMENTS'")
	case len(sources) > 1:
		return usage("%s do not go together", strings.Join(sources, " and ")).WithAdvice("tasks come from one of them")
	case len(sources) == 0:
		return usage("no tasks: nothing says what to run the program on").
			WithAdvice("give --input, --args-from, or --array N (one task: --array 1)")
	case set("split") && !set("input"):
		return usage("--split without --input").WithAdvice("an array or a list of lines is not cut")
	case set("include") && !set("input"):
		return usage("--include without --input").WithAdvice("it chooses files of an input directory")
	case set("fan-in") && f.reduce == "":
		return usage("--fan-in without --reduce").WithAdvice("give the reducer with --reduce 'PROGRAM.wasm ARGUMENTS'")
	case set("fan-in") && f.fanIn < 2:
		return usage("--fan-in %d reduces nothing", f.fanIn).WithAdvice("give 2 or more")
	case set("array") && f.array < 0:
		return usage("--array %d is no number of tasks", f.array).WithAdvice("give 0 or more")
	case f.detach && f.output != "":
		return usage("--detach and -o do not go together").WithAdvice("fetch the results later with `mesh get JOB -o PATH`")
	case f.outputName != "" && (f.output == "" || f.output == standardOutput):
		return usage("--output-name without a directory").WithAdvice("give one with -o DIR/")
	}
	return nil
}

// programs finds the programs and splits their arguments.
func (f *submitFlags) programs(s *submission, args []string) error {
	program, found, err := command("--map", f.mapper)
	if err != nil {
		return err
	}
	program.Args = append(program.Args, args...)
	s.request.Map, s.mapper = program, found
	if f.reduce != "" {
		program, found, err := command("--reduce", f.reduce)
		if err != nil {
			return err
		}
		s.request.Reduce, s.reduce = &program, &found
		s.request.FanIn = f.fanIn
	}
	return nil
}

func command(flag, text string) (api.Program, origin, error) {
	words, err := job.SplitArgs(text)
	if err != nil {
		return api.Program{}, origin{}, usage("%s: %w", flag, err)
	}
	if len(words) == 0 {
		return api.Program{}, origin{}, usage("%s names no program", flag)
	}
	found, err := find(words[0])
	if err != nil {
		return api.Program{}, origin{}, wrap(flag, err)
	}
	if found.size > job.MaxProgram {
		return api.Program{}, origin{}, usage("%s: the program %s has %d bytes, at most %d (%s) are allowed",
			flag, words[0], found.size, job.MaxProgram, size(job.MaxProgram))
	}
	if err := protocol.ValidName(found.name); err != nil {
		return api.Program{}, origin{}, wrap(flag, badName(found.name).WithAdvice("rename the program"))
	}
	return api.Program{Name: found.name, Args: words[1:]}, found, nil
}

// badName is what protocol.ValidName has against the name of a file, with the whole rule.
func badName(name string) *api.Error {
	return usage("%q: a job can't have this name, which has to be UTF-8 text without backslashes and control characters, of at most %d bytes between slashes",
		name, protocol.MaxComponent)
}

// wrap puts the flag in front of what is wrong with its value.
func wrap(flag string, err error) error {
	e := api.Errorf(api.KindOf(err), "%s: %w", flag, err)
	var inner *api.Error
	if errors.As(err, &inner) {
		e.Advice = inner.Advice
	}
	return e
}

// policy takes over limits and choices.
func (f *submitFlags) policy(s *submission) error {
	memory, err := humanize.ParseBytes(f.memory)
	if err != nil || memory == 0 {
		return usage("--memory %q is no size", f.memory).WithAdvice("write it as in 512MiB")
	}
	switch {
	case f.timeout <= 0:
		return usage("--timeout %s is no time", f.timeout).WithAdvice("write it as in 90s or 2h")
	case f.retries < 0:
		return usage("--retries %d is negative", f.retries)
	case f.replicas < 0:
		return usage("--replicas %d is negative", f.replicas)
	}
	for _, text := range f.okExit {
		n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 32)
		if err != nil || n > math.MaxUint8 {
			return usage("--ok-exit: %q is no exit status from 0 to 255", text).WithAdvice("write a list as in 0,1")
		}
		s.request.OkExit = append(s.request.OkExit, int32(n))
	}
	s.request.Name = f.name
	s.request.Memory = memory
	s.request.Timeout = api.Duration(f.timeout)
	s.request.KeepGoing = f.keepGoing
	s.request.Nondeterministic = f.nondeterministic
	return nil
}

func (f *submitFlags) environment(s *submission) error {
	for _, pair := range f.env {
		key, _, ok := strings.Cut(pair, "=")
		switch {
		case !ok || key == "":
			return usage("--env %q is not of the form K=V", pair)
		case strings.HasPrefix(key, "MESH_"):
			return usage("--env %s: names that begin with MESH_ are the mesh's own", key)
		}
	}
	s.request.Env = f.env
	return nil
}

// jobFiles finds the files that every task sees. FILE:NAME is taken apart at the last
// colon, unless a file has the whole as its name.
func (f *submitFlags) jobFiles(s *submission) error {
	seen := map[string]string{}
	for _, arg := range f.files {
		file, name := arg, ""
		if _, err := os.Stat(arg); errors.Is(err, fs.ErrNotExist) {
			if i := strings.LastIndexByte(arg, ':'); i > 0 {
				file, name = arg[:i], arg[i+1:]
			}
		}
		found, err := find(file)
		if err != nil {
			return wrap("--file", err)
		}
		if name != "" || file != arg {
			found.name = name
		}
		if err := protocol.ValidName(found.name); err != nil {
			return usage("--file %s: tasks can't see it under this name: %w", arg, err).WithAdvice("give another as in FILE:NAME")
		}
		if other, ok := seen[found.name]; ok {
			return usage("--file %s and --file %s are both /in/%s", other, arg, found.name).WithAdvice("give one another name as in FILE:NAME")
		}
		seen[found.name] = arg
		s.files = append(s.files, found)
	}
	return nil
}

// input finds what tasks run on.
func (f *submitFlags) input(s *submission) error {
	if f.argsFrom != "" {
		found := origin{reader: f.stdin, size: -1}
		if f.argsFrom != standardInput {
			var err error
			if found, err = find(f.argsFrom); err != nil {
				return wrap("--args-from", err)
			}
		}
		s.form, s.input = api.FormLines, []origin{found}
		return nil
	}
	if len(f.inputs) == 0 {
		n := uint64(f.array)
		s.request.Array = &n
		return nil
	}
	split, err := api.ParseSplit(f.split)
	if err != nil {
		return wrap("--split", err)
	}
	s.form, s.request.Split = api.FormInput, split.String()
	for _, p := range f.include {
		if _, err := path.Match(p, ""); err != nil {
			return usage("--include %q: %w", p, err)
		}
	}
	directories := false
	for _, arg := range f.inputs {
		isDir, err := f.addInput(s, arg)
		if err != nil {
			return wrap("--input", err)
		}
		directories = directories || isDir
	}
	if len(f.include) > 0 && !directories {
		return usage("--include chooses files of a directory, and no --input is one")
	}
	return nil
}

// addInput adds a file, or the files of a directory.
func (f *submitFlags) addInput(s *submission, arg string) (isDir bool, err error) {
	if arg == standardInput {
		s.input = append(s.input, origin{reader: f.stdin, size: -1})
		return false, nil
	}
	if stat, err := os.Stat(arg); err == nil && stat.IsDir() {
		found, skipped, err := walk(arg, f.include)
		if err != nil {
			return true, err
		}
		if len(found) == 0 {
			s.notes = append(s.notes, fmt.Sprintf("warning: %s: %s", arg, nothingIn(f.include)))
		}
		s.input = append(s.input, found...)
		s.skipped = append(s.skipped, skipped...)
		return true, nil
	}
	found, err := find(arg)
	if err == nil {
		if bad := protocol.ValidName(found.name); bad != nil {
			err = badName(arg).WithAdvice("rename it, or give it as standard input")
		}
	}
	s.input = append(s.input, found)
	return false, err
}

func nothingIn(include []string) string {
	if len(include) > 0 {
		return fmt.Sprintf("no regular file in it matches --include %s", strings.Join(include, " --include "))
	}
	return "there is no regular file in it"
}

// destination checks where results go while it costs nothing to say no.
func (f *submitFlags) destination(s *submission) error {
	if f.output == "" {
		return nil
	}
	named := s.form == api.FormInput && f.reduce == "" // results go with input files
	byFile := named && s.request.Split == string(api.SplitFile)
	s.target = target{path: f.output, pattern: f.outputName, byFile: byFile}
	if err := s.target.check(); err != nil {
		return err
	}
	if s.target.kind() != kindDirectory {
		return nil
	}
	if !byFile {
		name := ""
		if named && len(s.input) > 0 {
			name = s.input[0].name
		}
		_, err := s.target.name(0, 1, name)
		return err
	}
	seen := map[string]string{}
	for i, in := range s.input {
		name, err := s.target.name(uint64(i), uint64(len(s.input)), in.name)
		if err != nil {
			return err
		}
		if other, ok := seen[name]; ok {
			return usage("the results of %s and %s would both be called %s", other, in.label(), name).
				WithAdvice("choose names with --output-name, as in '{index}.out'")
		}
		seen[name] = in.label()
	}
	return nil
}
