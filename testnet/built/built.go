// Package built makes the commands of this module for tests that start them as processes, and keeps go test from giving out the
// results of older ones. It is for tests alone.
package built

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Commands builds packages, named as for go build, into a directory that it makes; env is added to the environment.
func Commands(dir string, env []string, packages ...string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	cmd := exec.Command("go", append([]string{"build", "-o", dir + "/"}, packages...)...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("built: %v: %w: %s", packages, err, out)
	}
	return nil
}

// LookAtSources makes the results of a test's package depend on every source of the module, whose root is given: of what tests
// depend on go test knows the files that the tests themselves have looked at, not those that the go command read for them. One
// test of a package has to call it; before the tests begin nothing counts.
func LookAtSources(t *testing.T, root string) {
	t.Helper()
	seen := 0
	for _, pattern := range []string{"go.*", "*/*.go", "*/*/*.go", "*/*/*/*.go"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if _, err := os.Stat(name); err == nil {
				seen++
			}
		}
	}
	if seen < 100 {
		t.Errorf("built: %d sources in %s", seen, root)
	}
}
