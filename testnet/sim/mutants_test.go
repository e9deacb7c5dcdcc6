//go:build mutants

package sim

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	only  = flag.String("mutant", "", "only the mutants whose name has this in it")
	short = flag.Int("mutantseeds", 60, "seeds that a mutant must not outlive")
)

// TestMutants plants each bug of mutations/ into the market, by an overlay of the
// compiler's, and wants the simulator to fail where it does not without the bug. A patch
// that no longer applies fails too: it is to be brought up to date with what it spoils.
func TestMutants(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	patches, err := filepath.Glob("mutations/*.patch")
	if err != nil || len(patches) < 20 {
		t.Fatalf("%d patches: %v", len(patches), err)
	}
	whole := failures(t, root, "")
	if len(whole) > 0 {
		t.Errorf("the simulator fails without a planted bug: %v", whole)
	}
	caught := 0
	for _, patch := range patches {
		name := strings.TrimSuffix(filepath.Base(patch), ".patch")
		if !strings.Contains(name, *only) {
			continue
		}
		found := failures(t, root, patch)
		for f := range whole {
			delete(found, f)
		}
		if len(found) == 0 {
			t.Errorf("%s survives", name)
			continue
		}
		caught++
		t.Logf("%-28s caught by %s", name, first(found))
	}
	t.Logf("%d mutants caught", caught)
}

func first(found map[string]bool) string {
	list := sortedKeys(found)
	text := list[0]
	if len(list) > 1 {
		text += fmt.Sprintf(" and %d more", len(list)-1)
	}
	return text
}

// failed finds the tests and the seeds that failed, and which invariant.
var failed = regexp.MustCompile(`(?m)^\s*(?:--- FAIL: (\S+)|.*: (seed \d+: [A-Z]\d|seed \d+: \w+)|.*(never seen): .*|(panic: [a-z ]{0,40}).*)`)

// failures builds the simulator with a patch and gives what fails in it.
func failures(t *testing.T, root, patch string) map[string]bool {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "sim.test")
	args := []string{"test", "-c", "-o", bin}
	if patch != "" {
		args = append(args, "-overlay", overlay(t, root, patch))
	}
	build := exec.Command("go", append(args, "./testnet/sim")...)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build with %q: %v\n%s", patch, err, out)
	}
	run := exec.Command(bin, "-test.timeout=3m", "-test.run=^Test[^BE]", fmt.Sprintf("-seeds=%d", *short))
	run.Dir = filepath.Join(root, "testnet/sim")
	out, err := run.CombinedOutput()
	found := map[string]bool{}
	if err == nil {
		return found
	}
	for _, m := range failed.FindAllSubmatch(out, -1) {
		name := string(bytes.Join(m[1:], nil))
		if name != "TestChaos" {
			found[name] = true
		}
	}
	if len(found) == 0 {
		found["status "+err.Error()] = true
	}
	return found
}

// overlay applies a patch to a copy of the files that it changes.
func overlay(t *testing.T, root, patch string) string {
	t.Helper()
	data, err := os.ReadFile(patch)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	replace := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^\+\+\+ b/(\S+)`).FindAllSubmatch(data, -1) {
		path := string(m[1])
		source, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), source, 0o644); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(root, path)] = filepath.Join(dir, path)
	}
	apply := exec.Command("git", "apply", "-C1", "-")
	apply.Dir, apply.Stdin = dir, bytes.NewReader(data)
	apply.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir))
	if out, err := apply.CombinedOutput(); err != nil {
		t.Fatalf("%s does not apply: %v\n%s", patch, err, out)
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(name, list, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}
