//go:build mutants

package sim

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

var bounds = flag.Int("mutantseeds", 60, "seeds in which a bug must show that what its patch names does not catch")

// TestMutants plants each bug into a build of its own, by an overlay of the compiler's, and
// wants the simulator to fail. First run are the tests and seeds named beside the patch,
// which pass without it; then all named cases, then seeds from 1 on.
func TestMutants(t *testing.T) {
	whole := build(t, nil)
	sound := map[catch]func() string{} // what a run says without a planted bug
	for _, m := range mutants(t) {
		for _, c := range m.catches {
			sound[c] = sync.OnceValue(func() string { return run(t, whole, c.args()...) })
		}
	}
	for _, m := range mutants(t) {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			bin := build(t, m)
			for _, c := range m.catches {
				if out := sound[c](); out != "" {
					t.Fatalf("%s fails without a planted bug: %s", c, firstFault(out))
				}
				if out := run(t, bin, c.args()...); out != "" {
					t.Logf("%s: caught by %s: %s", m.bug, c, firstFault(out))
					return
				}
			}
			if out := run(t, bin, "-test.run=^Test[^BEM]", "-test.failfast", "-first", fmt.Sprintf("-seeds=%d", *bounds)); out != "" {
				t.Logf("%s: caught, but not by what its patch names; name what does: %s", m.bug, firstFault(out))
				return
			}
			t.Errorf("%s: the simulator does not notice", m.bug)
		})
	}
}

// args make a run of the simulator's test binary.
func (c catch) args() []string {
	if seed, ok := strings.CutPrefix(string(c), "seed "); ok {
		return []string{"-test.run=^TestChaos$", "-first", "-seed=" + seed}
	}
	return []string{"-test.run=^" + string(c) + "$", "-test.failfast"}
}

// faultLine is a line of a failed run that says what is wrong: an invariant or, where there
// is none, whatever the last line says before the verdict.
var faultLine = regexp.MustCompile(`(?m)^\s+\w+_test\.go:\d+: ((?:seed \d+: )?I\d: .*)|^(panic: .*)`)

func firstFault(out string) string {
	text := ""
	for _, m := range faultLine.FindAllStringSubmatch(out, 1) {
		text = cmp.Or(m[1], m[2])
	}
	if list := strings.Split(strings.TrimSpace(out), "\n"); text == "" {
		text = list[max(0, len(list)-2)]
	}
	return text[:min(len(text), 200)]
}

// runTime bounds one run of a mutant. A bug that only makes the simulator slow is not caught.
const runTime = 10 * time.Minute

// run runs a simulator and gives its output where a test has failed.
func run(t *testing.T, bin string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), runTime)
	defer cancel()
	c := exec.CommandContext(ctx, bin, args...)
	c.Env = append(os.Environ(), "GOMAXPROCS=1")
	out, err := c.CombinedOutput()
	var status *exec.ExitError
	switch {
	case err == nil:
		return ""
	case ctx.Err() != nil || !errors.As(err, &status) || !bytes.Contains(out, []byte("FAIL")) && !bytes.Contains(out, []byte("panic: ")):
		t.Fatalf("%v: %v\n%s", args, err, out[:min(len(out), 2000)])
	}
	return string(out)
}

// build makes the simulator's test binary, with a planted bug or without.
func build(t *testing.T, m *mutant) string {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "sim.test")
	args := []string{"test", "-c", "-ldflags=-s -w", "-o", bin}
	if m != nil {
		changed, err := m.apply("../..")
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, "-overlay", overlay(t, dir, changed))
	}
	if out, err := exec.CommandContext(t.Context(), "go", append(args, ".")...).CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return bin
}

// overlay writes files that stand for others, and the list of them that the compiler reads.
func overlay(t *testing.T, dir string, files map[string][]byte) string {
	t.Helper()
	replace := map[string]string{}
	for path, data := range files {
		from, err := filepath.Abs(path)
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, fmt.Sprintf("%d.go", len(replace)))
		if err := os.WriteFile(to, data, 0o600); err != nil {
			t.Fatal(err)
		}
		replace[from] = to
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(name, list, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
