package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compute-mesh/mesh/node/api"
)

// Lines without news come after 1 s, 2 s, 4 s ... and then every minute; news brings them back.
func TestLinesWithoutNewsThinOut(t *testing.T) {
	var errs bytes.Buffer
	p := (&cli{err: &errs}).newProgress()
	var said []int // seconds from the start
	second := func(i int, s api.Status) {
		before := errs.Len()
		words := advance(s)
		p.line(p.began.Add(time.Duration(i)*time.Second), string(s.State), words, words)
		if errs.Len() > before {
			said = append(said, i)
		}
	}
	slow := api.Status{Summary: api.Summary{State: api.StateRunning, Counts: api.Counts{Tasks: 20, Pending: 20}}}
	for i := 1; i <= 300; i++ {
		second(i, slow)
	}
	if want := []int{1, 2, 4, 8, 16, 32, 64, 124, 184, 244}; !slices.Equal(said, want) {
		t.Errorf("said at %v, want %v", said, want)
	}
	said = nil
	slow.Done, slow.Pending = 1, 19
	for i := 301; i <= 310; i++ {
		second(i, slow)
	}
	slow.State = api.StateStalled
	second(311, slow)
	if want := []int{301, 302, 304, 308, 311}; !slices.Equal(said, want) {
		t.Errorf("after news at %v, want %v", said, want)
	}
}

// What a peer runs is told with what is known of it.
func TestRunningInWords(t *testing.T) {
	half := 0.45
	for want, p := range map[string]api.PeerWork{
		"0": {}, "2": {Running: 2}, "2 (45 %)": {Running: 2, Progress: &half}, "2 (compiling)": {Running: 2, Compiling: 1, Progress: &half},
	} {
		if got := running(p); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	s := api.Status{Summary: api.Summary{Counts: api.Counts{Tasks: 3, Running: 3}}, Peers: []api.PeerWork{{Running: 2, Compiling: 2}, {Running: 1}}}
	if got, want := advance(s), "0 of 3 done, 3 running, compiling on 1 peer, 2 peers"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

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
		lines[n-2] != `stalled: 999 of 1000 done, 1 pending: no peer can run it\x1b[2J` ||
		lines[n-1] != `stalled: 999 of 1000 done, 1 pending, 2 tasks/s: no peer can run it\x1b[2J` {
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
