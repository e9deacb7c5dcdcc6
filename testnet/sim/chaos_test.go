package sim

import (
	"bufio"
	_ "embed"
	"flag"
	"fmt"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	seeds  = flag.Int("seeds", 20, "how many seeds TestChaos runs, beside those of seeds.txt")
	chosen = flag.String("seed", "", "run only these seeds, as 17 or 17,31")
	period = flag.Duration("time", 0, "run new seeds for this long instead")
	first  = flag.Bool("first", false, "stop at the first violation")
	peers  = flag.Int("peers", 20, "peers of a simulated mesh")
)

// manySeeds is from how many on a run must have seen everything that Expected names.
const manySeeds = 200

// replayEvery is which seeds are run twice: one seed is one trace.
const replayEvery = 25

//go:embed seeds.txt
var seedsText string

// pastSeeds are those that once failed.
func pastSeeds() []uint64 {
	var list []uint64
	lines := bufio.NewScanner(strings.NewReader(seedsText))
	for lines.Scan() {
		word, _, _ := strings.Cut(lines.Text(), " ")
		if n, err := strconv.ParseUint(word, 10, 64); err == nil {
			list = append(list, n)
		}
	}
	return list
}

// summary is the last line of a run, printed by TestMain.
var summary string

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if summary != "" {
		fmt.Println(summary)
	}
	os.Exit(code)
}

// source gives the seeds of a run, one after another.
func source(t *testing.T, started time.Time) func() (uint64, bool) {
	var mu sync.Mutex
	list, next, left := pastSeeds(), uint64(1), *seeds
	switch {
	case *chosen != "":
		list, left = parseSeeds(t, *chosen), 0
	case *period > 0:
		list, next, left = nil, uint64(started.UnixNano()), math.MaxInt
	}
	return func() (uint64, bool) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case *first && t.Failed():
			return 0, false
		case len(list) > 0:
			n := list[0]
			list = list[1:]
			return n, true
		case left <= 0, *period > 0 && time.Since(started) > *period:
			return 0, false
		}
		left--
		next++
		return next - 1, true
	}
}

func parseSeeds(t *testing.T, text string) (list []uint64) {
	for word := range strings.SplitSeq(text, ",") {
		n, err := strconv.ParseUint(word, 10, 64)
		if err != nil {
			t.Fatalf("seeds %q: %v", text, err)
		}
		list = append(list, n)
	}
	return list
}

// TestChaos runs seeds, as many at once as there are processors. A violation is printed
// with the command that replays it.
func TestChaos(t *testing.T) {
	started := time.Now()
	next := source(t, started)
	var mu sync.Mutex
	var wg sync.WaitGroup
	counts := Counts{}
	ran, violations := 0, 0
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for n, ok := next(); ok; n, ok = next() {
				o := Chaos(n, *peers)
				if n%replayEvery == 0 || *chosen != "" && !*first {
					if again := Chaos(n, *peers); again.Trace != o.Trace {
						o.Violations = append(o.Violations, fmt.Errorf("trace: two runs of one seed differ"))
					}
				}
				mu.Lock()
				ran++
				counts.Add(o.Counts)
				violations += len(o.Violations)
				for _, v := range o.Violations {
					t.Errorf("seed %d: %v", n, v)
				}
				if len(o.Violations) > 0 {
					t.Logf("replay with: go test ./testnet/sim -run '^TestChaos$' -count=1 -peers=%d -seed=%d", *peers, n)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if missing := counts.Missing(); ran >= manySeeds && len(missing) > 0 {
		violations += len(missing)
		t.Errorf("never seen in %d seeds: %s", ran, strings.Join(missing, ", "))
	}
	t.Logf("counts:\n%s", counts)
	summary = fmt.Sprintf("seeds %d, violations %d, seconds %.0f", ran, violations, time.Since(started).Seconds())
}
