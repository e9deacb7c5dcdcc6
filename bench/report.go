package main

import (
	"encoding/json"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(file string, h hash.Hash) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(h, f)
	return err
}

// ideal is the column of the bare program.
const ideal = "ideal"

// A row is one figure, of every system that has it.
type row struct {
	name, title, unit string
	digits            int
}

// rows are all figures in the order in which they are printed.
var rows = []row{
	{"latency", "one no-op, submit to exit", "ms", 0},
	{"latency cpu", "  CPU", "ms", 0},
	{"noop 1000", "1,000 no-ops", "tasks/s", 0},
	{"noop 1000 marginal", "  less one no-op", "tasks/s", 0},
	{"noop 1000 cpu", "  CPU a task", "ms", 2},
	{"noop 10000", "10,000 no-ops", "tasks/s", 0},
	{"noop 10000 marginal", "  less one no-op", "tasks/s", 0},
	{"noop 10000 cpu", "  CPU a task", "ms", 2},
	{"index", "as many that print their index", "tasks/s", 0},
	{"index cpu", "  CPU a task", "ms", 2},
	{"words", "word count, 1 replica", "s", 2},
	{"words cpu", "  CPU", "s", 1},
	{"words replicated", "word count, 3 replicas", "s", 2},
	{"words replicated cpu", "  CPU", "s", 1},
	{"words memory meshd", "  most memory: meshd", "MiB", 0},
	{"words memory task process", "  most memory: its task process", "MiB", 0},
	{"words memory mesh", "  most memory: mesh submit", "MiB", 0},
	{"burn", "CPU-bound tasks of 1 s", "s", 1},
	{"burn cpu", "  CPU", "s", 1},
	{"engine", "engine against native, 3 kernels", "x", 2},
	{"engine nbody", "  n-body", "x", 2},
	{"engine mandelbrot", "  Mandelbrot", "x", 2},
	{"engine sha256", "  SHA-256", "x", 2},
	{"disk", "a file written and synced", "MB/s", 0},
	{"import", "import of a file (ideal: SHA-256)", "MB/s", 0},
	{"import cpu", "  CPU a GiB", "s", 2},
	{"transfer", "a file from a peer to another", "MB/s", 0},
	{"transfer cpu", "  CPU a GiB, both ends", "s", 2},
	{"read", "a file from a peer to its user", "MB/s", 0},
	{"spread", "a file to 3 peers, to 1 = 1", "x", 2},
	{"spread cpu", "  CPU a GiB and peer", "s", 2},
	{"idle rss", "idle: resident memory", "MiB", 0},
	{"idle pss", "  shared pages counted once", "MiB", 0},
	{"idle cpu", "  CPU", "%", 2},
	{"idle sent", "  sent", "B/s", 0},
	{"growth 1000", "growth: 1,000 tasks", "tasks/s", 0},
	{"growth 1000 cpu", "  CPU a task", "ms", 2},
	{"growth 1000 bytes", "  sent a task", "B", 0},
	{"growth 1000 memory", "  most memory of a peer so far", "MiB", 0},
	{"growth 10000", "growth: 10,000 tasks", "tasks/s", 0},
	{"growth 10000 cpu", "  CPU a task", "ms", 2},
	{"growth 10000 bytes", "  sent a task", "B", 0},
	{"growth 10000 memory", "  most memory of a peer so far", "MiB", 0},
	{"growth 100000", "growth: 100,000 tasks", "tasks/s", 0},
	{"growth 100000 cpu", "  CPU a task", "ms", 2},
	{"growth 100000 bytes", "  sent a task", "B", 0},
	{"growth 100000 memory", "  most memory of a peer so far", "MiB", 0},
	{"growth 1000000", "growth: 1,000,000 tasks", "tasks/s", 0},
	{"growth 1000000 cpu", "  CPU a task", "ms", 2},
	{"growth 1000000 bytes", "  sent a task", "B", 0},
	{"growth 1000000 memory", "  most memory of a peer so far", "MiB", 0},
}

// titles are the columns, in their order.
var titles = [][2]string{
	{"mesh", "mesh"}, {"nats", "NATS"}, {"xargs", "xargs"}, {"parallel", "parallel"}, {"gearman", "Gearman"}, {"dask", "Dask"},
	{localName, "no mesh"}, {ideal, "ideal"},
}

func title(name string) string {
	for _, t := range titles {
		if t[0] == name {
			return t[1]
		}
	}
	return name
}

// columns are the systems that there are figures of.
func (f *figures) columns() (names []string) {
	for _, t := range titles {
		for _, by := range f.samples {
			if len(by[t[0]]) > 0 {
				names = append(names, t[0])
				break
			}
		}
	}
	return names
}

// figures are the samples of each figure and system.
type figures struct {
	samples map[string]map[string][]float64
	others  []float64 // cores that something else used, of every measurement
}

func newFigures() *figures { return &figures{samples: make(map[string]map[string][]float64)} }

func (f *figures) add(name string, s system, r reading, value float64) {
	f.put(name, s.name(), value)
	f.others = append(f.others, r.others)
}

func (f *figures) addIdeal(name string, r reading, value float64) {
	f.put(name, ideal, value)
	f.others = append(f.others, r.others)
}

func (f *figures) put(name, system string, value float64) {
	if f.samples[name] == nil {
		f.samples[name] = make(map[string][]float64)
	}
	f.samples[name][system] = append(f.samples[name][system], value)
}

// copy takes the newest sample of a figure for another.
func (f *figures) copy(from, to string, s system) {
	list := f.samples[from][s.name()]
	f.put(to, s.name(), list[len(list)-1])
}

// A spread is what the samples of a figure come to.
type spread struct {
	Median  float64   `json:"median"`
	Min     float64   `json:"min"`
	Max     float64   `json:"max"`
	Samples []float64 `json:"samples"`
}

func spreadOf(samples []float64) (spread, bool) {
	if len(samples) == 0 {
		return spread{}, false
	}
	sorted := slices.Sorted(slices.Values(samples))
	n := len(sorted)
	return spread{(sorted[(n-1)/2] + sorted[n/2]) / 2, sorted[0], sorted[n-1], samples}, true
}

func (s spread) text(digits int) string {
	f := func(x float64) string { return strconv.FormatFloat(x, 'f', digits, 64) }
	if len(s.Samples) == 1 || f(s.Min) == f(s.Max) {
		return f(s.Median)
	}
	return fmt.Sprintf("%s (%s-%s)", f(s.Median), f(s.Min), f(s.Max))
}

// print prints two tables: the medians, in brackets the least and the most; and ours divided by the others'.
func (f *figures) print(to io.Writer) {
	names := f.columns()
	f.table(to, names, func(r row, name string) string {
		s, ok := spreadOf(f.samples[r.name][name])
		if !ok {
			return ""
		}
		return s.text(r.digits)
	})
	fmt.Fprintln(to, "\nmesh divided by the others:")
	var others []string
	for _, name := range names {
		if name != "mesh" {
			others = append(others, name)
		}
	}
	f.table(to, others, func(r row, name string) string {
		if q, ok := f.ratio(r.name, name); ok {
			return strconv.FormatFloat(q, 'f', 2, 64)
		}
		return ""
	})
	if s, ok := spreadOf(f.others); ok {
		fmt.Fprintf(to, "\nMeanwhile other programs kept %s cores of this machine busy.\n", s.text(1))
	}
}

// ratio is the quotient of the medians of the mesh and of another.
func (f *figures) ratio(row, name string) (float64, bool) {
	ours, measured := spreadOf(f.samples[row]["mesh"])
	s, ok := spreadOf(f.samples[row][name])
	if !ok || !measured || name == "mesh" || s.Median <= 0 {
		return 0, false
	}
	return ours.Median / s.Median, true
}

// table prints the rows that have a cell.
func (f *figures) table(to io.Writer, names []string, cell func(row, string) string) {
	t := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "\n\t")
	for _, name := range names {
		fmt.Fprintf(t, "\t%s", title(name))
	}
	fmt.Fprintln(t)
	for _, r := range rows {
		var cells strings.Builder
		some := false
		for _, name := range names {
			text := cell(r, name)
			some = some || text != ""
			cells.WriteString("\t" + text)
		}
		if some {
			fmt.Fprintf(t, "%s\t%s%s\n", r.title, r.unit, cells.String())
		}
	}
	t.Flush()
}

func (b *bench) writeJSON(file string) error {
	type systems map[string]spread
	out := struct {
		Time    time.Time                     `json:"time"`
		Mesh    string                        `json:"mesh"`
		Go      string                        `json:"go"`
		CPUs    int                           `json:"cpus"`
		Workers int                           `json:"workers"`
		Native  string                        `json:"native"`
		Text    string                        `json:"text,omitempty"`
		Bytes   int64                         `json:"text_bytes"`
		File    int64                         `json:"file_bytes"`
		Burn    int                           `json:"burn_rounds,omitempty"`
		Quick   bool                          `json:"quick"`
		Others  spread                        `json:"others_cores"`
		Figures map[string]systems            `json:"figures"`
		Ratios  map[string]map[string]float64 `json:"ratios"` // ours divided by theirs
		Units   map[string]string             `json:"units"`
	}{Time: time.Now().UTC(), Mesh: b.engine, Go: runtime.Version(), CPUs: runtime.NumCPU(), Workers: workers,
		Native: b.native.compiler, Text: b.text.source, Bytes: b.options.text, File: b.file, Burn: b.burnRounds,
		Quick: b.quick, Figures: make(map[string]systems), Units: make(map[string]string),
		Ratios: make(map[string]map[string]float64)}
	out.Others, _ = spreadOf(b.figures.others)
	for _, r := range rows {
		for name, samples := range b.figures.samples[r.name] {
			if out.Figures[r.name] == nil {
				out.Figures[r.name], out.Units[r.name] = make(systems), r.unit
			}
			out.Figures[r.name][name], _ = spreadOf(samples)
			if q, ok := b.figures.ratio(r.name, name); ok {
				if out.Ratios[r.name] == nil {
					out.Ratios[r.name] = make(map[string]float64)
				}
				out.Ratios[r.name][name] = q
			}
		}
	}
	data, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o666)
}
