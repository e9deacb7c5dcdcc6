// Bench measures what the mesh costs, and puts it beside what a user would pick instead: NATS JetStream with four
// workers, xargs -P4, GNU parallel, Gearman and Dask where they are installed, and the bare programs. All systems run the same workloads in turn, in the same run, on the same
// machine; README.md says what each figure is.
//
// It drives bin/mesh and bin/meshd as a user does and takes nothing from their insides: what it reads is the clock,
// /proc and the peers' /metrics. So it needs Linux. It leaves nothing behind but the file of -json.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

// workers is how many peers or workers of one slot every system has.
const workers = 4

// options are what the command line says.
type options struct {
	bin     string
	temp    string
	json    string
	svg     string
	run     []string
	systems []string
	rounds  int
	quick   bool
	text    int64 // bytes of the text whose words are counted
	file    int64 // bytes of the file that is moved
}

func main() {
	if len(os.Args) > 1 {
		if part, ok := parts[os.Args[1]]; ok {
			exit(part(os.Args[2:]))
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	err = o.measure(ctx)
	if ctx.Err() != nil {
		os.Exit(130)
	}
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// parts are the programs that bench starts itself as: the daemons and the client of the NATS queue, and the native
// tasks where there is no C compiler.
var parts = map[string]func(args []string) error{
	"nats-server": natsServer,
	"nats-worker": natsWorker,
	"nats-submit": natsSubmit,
	"wordcount":   nativeWordcount,
	"burn":        nativeBurn,
}

func parse(args []string) (options, error) {
	var o options
	var run, systems string
	var text, file int64
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&o.bin, "bin", "../bin", "directory of mesh and meshd")
	f.StringVar(&o.temp, "dir", os.TempDir(), "directory for all that is kept while it runs")
	f.StringVar(&o.json, "json", "", "file to write the figures to")
	f.StringVar(&o.svg, "svg", "", "file to draw the figures to")
	f.StringVar(&run, "run", strings.Join(workloadNames(), ","), "workloads to run")
	f.StringVar(&systems, "systems", strings.Join(installed(), ","), "systems to measure; the default is what is installed")
	f.IntVar(&o.rounds, "rounds", 5, "rounds of each workload; idle and growth, and burn of others, are in the first alone")
	f.Int64Var(&text, "text", 512, "MiB of the text whose words are counted")
	f.Int64Var(&file, "file", 512, "MiB of the file that is moved from a peer to another")
	f.BoolVar(&o.quick, "quick", false, "one round of everything in small: to see that it works, not what it costs")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.run, o.systems = strings.Split(run, ","), strings.Split(systems, ",")
	o.text, o.file = text<<20, file<<20
	if o.quick {
		o.rounds, o.text, o.file = 1, min(o.text, 64<<20), min(o.file, 64<<20)
	}
	return o, o.validate(f)
}

func (o *options) validate(f *flag.FlagSet) error {
	var faults []error
	if f.NArg() > 0 {
		faults = append(faults, fmt.Errorf("unexpected argument %q", f.Arg(0)))
	}
	for _, w := range o.run {
		if !slices.Contains(workloadNames(), w) {
			faults = append(faults, fmt.Errorf("-run: no workload %q; there are %s", w, strings.Join(workloadNames(), ", ")))
		}
	}
	for _, s := range o.systems {
		if !slices.Contains(installed(), s) {
			faults = append(faults, fmt.Errorf("-systems: no system %q; there are %s here", s, strings.Join(installed(), ", ")))
		}
	}
	if o.rounds < 1 || o.text < 1 || o.file < 1 {
		faults = append(faults, errors.New("-rounds, -text and -file are at least 1"))
	}
	bin, err := filepath.Abs(o.bin)
	o.bin = bin
	for _, p := range []string{"mesh", "meshd"} {
		if _, e := os.Stat(filepath.Join(bin, p)); e != nil {
			err = errors.Join(err, fmt.Errorf("%w: `make build` makes it", e))
		}
	}
	if runtime.GOOS != "linux" {
		err = errors.Join(err, errors.New("it reads /proc, so it needs Linux"))
	}
	return errors.Join(append(faults, err)...)
}

// measure runs what was asked for and prints the figures, those of a run that was cut short too.
func (o *options) measure(ctx context.Context) error {
	dir, err := os.MkdirTemp(o.temp, "mesh-bench.")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{options: *o, dir: dir, figures: newFigures()}
	if b.examples, err = filepath.Abs("../examples"); err != nil {
		return err
	}
	if b.kernels, err = filepath.Abs("kernels"); err != nil {
		return err
	}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	err = b.rounds(ctx)
	b.figures.print(os.Stdout)
	if o.json != "" {
		err = errors.Join(err, b.writeJSON(o.json))
	}
	if o.svg != "" {
		err = errors.Join(err, os.WriteFile(o.svg, b.figures.plot(), 0o666))
	}
	return err
}
