package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/compute-mesh/mesh/node/api"
)

// Without a terminal a change of state is said at once, all else once a second.
func TestProgressInLines(t *testing.T) {
	var errs bytes.Buffer
	p := (&cli{err: &errs}).newProgress()
	for i := range 1000 {
		p.job(api.Status{Summary: api.Summary{State: api.StateRunning, Counts: api.Counts{Tasks: 1000, Done: uint64(i)}}})
	}
	stalled := api.Summary{State: api.StateStalled, Reason: "no peer can run it\x1b[2J", Counts: api.Counts{Tasks: 1000, Done: 999, Pending: 1}}
	p.job(api.Status{Summary: stalled})
	p.said = p.said.Add(-lineInterval)
	p.job(api.Status{Summary: stalled, Rate: 2})
	p.close()
	lines := strings.Split(strings.TrimSpace(errs.String()), "\n")
	n := len(lines)
	if n < 2 || n > 2+int(time.Since(p.began)/lineInterval)+1 ||
		lines[n-2] != `stalled: 999 of 1000 done, 1 pending, no peer can run it\x1b[2J` ||
		lines[n-1] != `stalled: 999 of 1000 done, 1 pending, 2 tasks/s, no peer can run it\x1b[2J` {
		t.Errorf("%q", lines)
	}
	errs.Reset()
	quiet := (&cli{err: &errs, json: true}).newProgress()
	quiet.said = quiet.said.Add(-time.Hour)
	quiet.job(api.Status{Summary: stalled})
	if errs.Len() > 0 {
		t.Errorf("with --json: %q", errs.String())
	}
}
