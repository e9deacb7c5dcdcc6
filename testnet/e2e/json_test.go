package e2e

import (
	"encoding/json"
	"testing"
)

// jobOf is the job in what --json printed; it has to be the first field.
func jobOf(t *testing.T, out string) string {
	t.Helper()
	var o struct{ Job string }
	if err := json.Unmarshal([]byte(out), &o); err != nil || o.Job == "" || len(out) < 8 || out[:8] != `{"job":"` {
		t.Fatalf("no job in %q: %v", out, err)
	}
	return o.Job
}
