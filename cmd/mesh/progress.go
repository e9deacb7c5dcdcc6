package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/compute-mesh/mesh/node/api"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

const (
	// lineInterval is the least time between two lines of progress where there is no
	// terminal; a change of the job's state is said at once. A line without news doubles
	// the time to the next, up to quietInterval.
	lineInterval  = time.Second
	quietInterval = time.Minute
	// barDelay keeps the bar away from what is over before it could be read.
	barDelay = 200 * time.Millisecond
	barWidth = 30
)

// progress shows how far something is: a bar on a terminal, lines elsewhere, nothing
// with --json. Its methods are called by one goroutine at a time.
type progress struct {
	c       *cli
	began   time.Time
	said    time.Time     // when the last line was written
	gap     time.Duration // least time from it to the next without news
	state   string
	news    string // of the last line
	bars    *mpb.Progress
	bar     *mpb.Bar
	caption atomic.Pointer[string]
	mu      sync.Mutex
}

func (c *cli) newProgress() *progress {
	now := time.Now()
	return &progress{c: c, began: now, said: now, gap: lineInterval}
}

// update shows a state of its own kind ("running"), how much of how much is done (total
// below 0: unknown), and the rest in words. Without a change of news, lines thin out.
func (p *progress) update(state string, done, total int64, words, news string) {
	if p.c.json {
		return
	}
	now := time.Now()
	if !p.c.errTerminal {
		p.line(now, state, words, news)
		return
	}
	text := inline(state + "  " + words)
	p.caption.Store(&text)
	if p.bar == nil {
		if now.Sub(p.began) < barDelay {
			return
		}
		p.start()
	}
	p.bar.SetTotal(max(total, done, 1), false)
	p.bar.SetCurrent(done)
}

// line writes a line where one is due.
func (p *progress) line(now time.Time, state, words, news string) {
	changed := p.state != "" && state != p.state
	gap := lineInterval
	if news == p.news {
		gap = p.gap
	}
	p.state = state
	if !changed && now.Sub(p.said) < gap {
		return
	}
	p.gap = lineInterval
	if !changed && news == p.news {
		p.gap = min(2*gap, quietInterval)
	}
	p.said, p.news = now, news
	p.c.note("%s: %s", state, words)
}

// start shows the bar. It is made without a total, which mpb then takes to be open: it
// may change, and reaching it does not end the bar.
func (p *progress) start() {
	p.bars = mpb.New(mpb.WithOutput(p.c.err), mpb.WithWidth(barWidth))
	p.bar = p.bars.New(0, mpb.BarStyle().Lbound("[").Filler("=").Tip(">").Padding(" ").Rbound("]"),
		mpb.BarRemoveOnComplete(),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return *p.caption.Load() })))
}

// close takes the bar away.
func (p *progress) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		p.bar.Abort(true)
		p.bars.Wait()
		p.bar = nil
	}
}

// importing shows how far the import of src is, from now on.
func (p *progress) importing(src *files) {
	total := src.total()
	var done int64
	src.read = func(n int) {
		done += int64(n)
		words := size(uint64(done))
		if total >= 0 {
			words += " of " + size(uint64(total))
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.update("importing", done, total, words, words)
	}
}

// fetching shows how far results are fetched.
func (p *progress) fetching(outputs, of, bytes uint64) {
	words := fmt.Sprintf("%s of %d, %s", count(outputs, "output"), of, size(bytes))
	p.update("fetching", int64(outputs), int64(of), words, words)
}

// job shows how far a job is.
func (p *progress) job(s api.Status) {
	words := advance(s)
	if s.Reason != "" {
		words += ": " + s.Reason
	}
	news := fmt.Sprint(s.Done, s.Failed, s.Reason, compiling(s))
	p.update(string(s.State), int64(s.Done), int64(s.Tasks), words, news)
}

// advance is how far a job is, in words.
func advance(s api.Status) string {
	words := []string{fmt.Sprintf("%d of %d done", s.Done, s.Tasks)}
	add := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	if s.Running > 0 {
		add("%d running", s.Running)
	}
	if s.Pending > 0 {
		add("%d pending", s.Pending)
	}
	if n := compiling(s); n > 0 {
		add("compiling on %s", count(n, "peer"))
	}
	if s.Failed > 0 {
		add("%d failed", s.Failed)
	}
	if s.Rate > 0 {
		add("%.3g tasks/s", s.Rate)
	}
	if s.ETA != nil {
		add("ETA %s", span(time.Duration(*s.ETA*float64(time.Second))))
	}
	if n := len(s.Peers); n > 0 {
		add("%s", count(uint64(n), "peer"))
	}
	return strings.Join(words, ", ")
}

// compiling is the number of peers that have a task which waits for its program to be compiled.
func compiling(s api.Status) (n uint64) {
	for _, p := range s.Peers {
		if p.Compiling > 0 {
			n++
		}
	}
	return n
}

// ending is how a job ended, in words.
func ending(s api.Status) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", s.State, count(s.Tasks, "task"))
	if !s.Ended.IsZero() {
		fmt.Fprintf(&b, " in %s", span(s.Ended.Sub(s.Created)))
	}
	if n := len(s.Peers); n > 0 {
		fmt.Fprintf(&b, " on %s", count(uint64(n), "peer"))
	}
	return b.String()
}

// shape is what a job consists of, in words.
func shape(sub api.Submitted) string {
	var parts []string
	for _, s := range sub.Stages {
		parts = append(parts, fmt.Sprintf("%s %d", s.Name, s.Tasks))
	}
	text := count(sub.Tasks, "task")
	if len(parts) > 1 {
		text += " (" + strings.Join(parts, ", ") + ")"
	}
	return text
}

// awaitEnd shows a job's progress until it has ended, and gives its last status.
func (c *cli) awaitEnd(ctx context.Context, id string) (api.Status, error) {
	p := c.newProgress()
	defer p.close()
	var last api.Status
	err := c.client.Watch(ctx, id, func(s api.Status) error {
		last = s
		if !s.State.Ended() {
			p.job(s)
		}
		return nil
	})
	p.close()
	if err == nil && !last.State.Ended() {
		err = io.ErrUnexpectedEOF
	}
	return last, cancelled(ctx, err, fmt.Sprintf(
		"stopped waiting; job %s goes on: `mesh watch %s` shows it, `mesh get %s -o PATH` fetches its results, `mesh cancel %s` stops it",
		id, id, id, id))
}

// failure is the error of a job that has ended badly.
func (c *cli) failure(s api.Status) error {
	if s.State == api.StateCancelled {
		return api.Errorf(api.KindFailed, "job %s was cancelled", s.Job)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "job %s failed: %s", s.Job, s.Reason)
	for _, f := range s.Failures {
		fmt.Fprintf(&b, "\n  %s", inline(attempts(f)))
	}
	return api.Errorf(api.KindFailed, "%s", b.String()).
		WithAdvice("`mesh logs %s` shows what its tasks wrote, `mesh get %s --partial -o DIR/` fetches the results there are", s.Job, s.Job)
}

// attempts is what became of a task on one peer, in words.
func attempts(f api.Failure) string {
	text := f.String()
	if f.Peer != "" {
		text += ", on " + f.Peer
	}
	if f.Attempt > 1 {
		text += fmt.Sprintf(" (%d attempts)", f.Attempt)
	}
	return text
}
