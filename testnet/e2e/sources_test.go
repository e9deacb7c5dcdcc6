package e2e

import (
	"os"
	"path/filepath"
	"testing"
)

// TestSourcesAreLookedAt keeps go test from giving out the results of an older meshd: of what tests depend on, it knows the files
// that the tests themselves have looked at, not those that the go command reads to build it for them.
func TestSourcesAreLookedAt(t *testing.T) {
	seen := 0
	for _, pattern := range []string{"go.*", "*/*.go", "*/*/*.go", "*/*/*/*.go"} {
		files, err := filepath.Glob(filepath.Join("../..", pattern))
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
		t.Errorf("%d files", seen)
	}
}
