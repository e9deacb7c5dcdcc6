package e2e

import (
	"flag"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"text/tabwriter"
	"time"
)

// long wants the scenarios of chaos at their full size, and a table of what was measured.
var long = flag.Bool("chaos", false, "run the scenarios of chaos at their full size, and print a table of figures")

// size is how large a scenario is: in every run of the tests, or at its full size.
func size[T any](small, full T) T {
	if *long {
		return full
	}
	return small
}

// figures are what the tests have measured. They are told, never judged: a machine that has
// other things to do makes them worse, and breaks no promise.
var figures struct {
	sync.Mutex
	rows []string
}

// figure notes one.
func figure(t *testing.T, what string, value any) {
	t.Helper()
	if d, ok := value.(time.Duration); ok {
		value = d.Round(time.Millisecond)
	}
	t.Logf("%s: %v", what, value)
	figures.Lock()
	defer figures.Unlock()
	figures.rows = append(figures.rows, fmt.Sprintf("%s\t%s\t%v", t.Name(), what, value))
}

// spread notes the median and the worst of some times.
func spread(t *testing.T, what string, times []time.Duration) {
	t.Helper()
	if len(times) == 0 {
		return
	}
	slices.Sort(times)
	figure(t, what+", median", times[len(times)/2])
	figure(t, fmt.Sprintf("%s, worst of %d", what, len(times)), times[len(times)-1])
}

// printFigures prints the table of the long run.
func printFigures(w io.Writer) {
	if !*long || len(figures.rows) == 0 {
		return
	}
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "\nSCENARIO\tWHAT\tFIGURE")
	for _, row := range figures.rows {
		fmt.Fprintln(out, row)
	}
	out.Flush()
}
