package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/node/api"
	"github.com/compute-mesh/mesh/protocol"
)

// pollEvery is how often a watcher asks a keeper elsewhere.
const pollEvery = 500 * time.Millisecond

// Jobs implements api.Jobs.
func (b *backend) Jobs(ctx context.Context) ([]api.Summary, error) {
	var list []api.Summary
	err := b.n.driver.ask(ctx, func(m machine) {
		now := b.n.driver.clock.now()
		known := make(map[protocol.JobID]bool)
		for _, id := range m.Jobs() {
			if v, ok := m.View(id); ok {
				known[id] = true
				r := newReport(&v, now)
				r.ledger(m.Records(id))
				list = append(list, summary(&view{report: *r}, v.Job))
			}
		}
		for _, a := range m.Announced() {
			if !known[a.Job] {
				list = append(list, api.Summary{
					Job: a.Job.String(), State: api.StateRunning, Reason: "announced; this peer has no part in it", Owner: a.Owner.String(),
					Created: time.UnixMilli(a.Time).UTC(), Counts: api.Counts{Tasks: a.Tasks},
				})
			}
		}
	})
	slices.SortStableFunc(list, func(x, y api.Summary) int { return y.Created.Compare(x.Created) })
	return list, explain(err)
}

// stateOf is a job's state as users see it.
func stateOf(v *view) api.State {
	switch v.state() {
	case protocol.JobDone:
		return api.StateDone
	case protocol.JobFailed:
		return api.StateFailed
	case protocol.JobCancelled:
		return api.StateCancelled
	}
	if v.Reason != "" {
		return api.StateStalled
	}
	return api.StateRunning
}

func (s *stageReport) counts() api.Counts {
	c := api.Counts{Tasks: s.Tasks, Done: s.Done, Running: s.Running, Failed: s.Failed}
	c.Pending = s.Tasks - min(s.Tasks, s.Done+s.Running+s.Failed)
	return c
}

func summary(v *view, signed *job.Signed) api.Summary {
	m := &signed.Manifest
	s := api.Summary{
		Job: signed.ID.String(), State: stateOf(v), Reason: v.why(m), Name: m.Name, Owner: m.Owner.String(),
		Created: m.Created, Ended: v.endedAt(),
	}
	for i := range v.Stages {
		c := v.Stages[i].counts()
		s.Tasks += c.Tasks
		s.Done += c.Done
		s.Running += c.Running
		s.Pending += c.Pending
		s.Failed += c.Failed
	}
	return s
}

// reasonNames are the reasons of failed attempts as text.
var reasonNames = map[protocol.Reason]string{
	protocol.ReasonExit: api.ReasonExit, protocol.ReasonTrap: "trap", protocol.ReasonTimeout: "timeout", protocol.ReasonMemory: "memory",
	protocol.ReasonOutput: "output", protocol.ReasonDisk: "disk", protocol.ReasonDeath: api.ReasonDeath, protocol.ReasonSuspect: api.ReasonSuspect, protocol.ReasonHang: api.ReasonHang,
}

// told is a failure as users see it; its stage is one of the manifest's.
func (f *failure) told(m *job.Manifest) api.Failure {
	return api.Failure{
		Stage: m.Stages[f.Stage].Name, Task: f.Task, Attempt: uint64(f.Attempt), Peer: f.Peer,
		Reason: reasonNames[protocol.Reason(f.Reason)], Exit: f.Exit, Detail: f.Detail,
	}
}

// why is the reason for the job's state: of a failed one its first task without attempts left, where that is known.
func (v *view) why(m *job.Manifest) string {
	if v.state() != protocol.JobFailed {
		return strings.TrimPrefix(v.Reason, "stalled: ")
	}
	attempts := make(map[running]int)
	for i := range v.Failures { // in the order of tasks, and in a task of attempts
		f := &v.Failures[i]
		task := running{f.Stage, f.Task}
		attempts[task] += int(f.Attempt)
		last := i+1 == len(v.Failures) || task != running{v.Failures[i+1].Stage, v.Failures[i+1].Task}
		if last && attempts[task] > m.Retries && int(f.Stage) < len(m.Stages) {
			return f.told(m).String()
		}
	}
	return v.Reason
}

func (b *backend) status(v *view, signed *job.Signed) api.Status {
	m := &signed.Manifest
	s := api.Status{
		Summary: summary(v, signed), Expires: m.Expires, Submitter: m.Submitter.String(),
		Split: m.Stages[0].Source.Split, Accepted: v.Accepted, Wanted: v.Wanted, Peers: []api.PeerWork{},
	}
	s.Keepers, s.Away = v.Copies, v.Copies-v.Near
	if m.Groups > 1 {
		s.Groups, s.Spread = m.Groups, len(v.Spread)
	}
	for i := range v.Stages {
		s.Stages = append(s.Stages, api.Stage{Name: m.Stages[i].Name, Counts: v.Stages[i].counts(), Bytes: m.Stages[i].Source.Bytes})
	}
	for _, share := range v.Shares {
		s.Peers = append(s.Peers, api.PeerWork{Peer: share.Peer, Tasks: share.Tasks})
	}
	if len(v.Running) > 0 {
		v.doing(b.work(&s, v.peer))
	}
	for i := range v.Failures[:min(len(v.Failures), api.MaxFailures)] {
		if f := &v.Failures[i]; int(f.Stage) < len(m.Stages) {
			s.Failures = append(s.Failures, f.told(m))
		}
	}
	if !s.State.Ended() {
		b.addRate(&s, signed.ID, time.Duration(v.Age)*time.Millisecond, time.Now())
	}
	return s
}

// work is the place in a status of who tells of the job: another peer or ("") this one.
func (b *backend) work(s *api.Status, who protocol.PeerID) *api.PeerWork {
	peer := cmp.Or(who, b.n.home.peer).String()
	i := slices.IndexFunc(s.Peers, func(w api.PeerWork) bool { return w.Peer == peer })
	if i < 0 {
		i = len(s.Peers)
		s.Peers = append(s.Peers, api.PeerWork{Peer: peer})
	}
	return &s.Peers[i]
}

// addRate tells how fast a job goes on and when it will have ended: of one that goes on, and will have before it expires.
func (b *backend) addRate(s *api.Status, id protocol.JobID, age time.Duration, now time.Time) {
	rate := b.rates.rate(id, s.Done, age, now)
	if s.State != api.StateRunning || rate == 0 {
		return
	}
	s.Rate = rate
	if eta := float64(s.Tasks-s.Done) / rate; eta < s.Expires.Sub(now).Seconds() {
		s.ETA = &eta
	}
}

// Status implements api.Jobs.
func (b *backend) Status(ctx context.Context, text string) (api.Status, error) {
	v, signed, err := b.known(ctx, text)
	if err != nil {
		return api.Status{}, err
	}
	s := b.status(v, signed)
	b.addWork(ctx, &s, signed.ID)
	return s, nil
}

// maxWork bounds the peers in a status: each of those that are asked and all that they can have fetched from.
const maxWork = askNeighbours * maxGivers

// addWork asks the peers near what they do for a job.
func (b *backend) addWork(ctx context.Context, s *api.Status, id protocol.JobID) {
	reports := b.n.workers(ctx, id)
	if own, err := b.n.report(ctx, id); err == nil && own != nil {
		reports[b.n.home.peer] = own
	}
	tally(s, reports)
}

// tally adds to a status what peers say that they do for its job.
func tally(s *api.Status, reports map[protocol.PeerID]*report) {
	at := func(peer string) *api.PeerWork {
		i := slices.IndexFunc(s.Peers, func(w api.PeerWork) bool { return w.Peer == peer })
		if i < 0 {
			if len(s.Peers) >= maxWork || decodePeer(peer) == "" {
				return &api.PeerWork{} // told by a peer that lies, and not shown
			}
			i = len(s.Peers)
			s.Peers = append(s.Peers, api.PeerWork{Peer: peer})
		}
		return &s.Peers[i]
	}
	for p, r := range reports {
		if len(r.Running) > 0 {
			r.doing(at(p.String()))
		}
		for _, t := range r.Fetched[:min(len(r.Fetched), maxGivers+1)] { // who gives does not know for which job
			at(p.String()).BytesIn += t.Bytes
			at(t.Peer).BytesOut += t.Bytes
		}
		for _, share := range r.Shares { // nobody has seen every result come
			w := at(share.Peer)
			w.Tasks = max(w.Tasks, share.Tasks)
		}
	}
	slices.SortFunc(s.Peers, func(x, y api.PeerWork) int { return cmp.Compare(x.Peer, y.Peer) })
	tallyRunning(s, reports)
}

// doing says what the peer of the report runs.
func (r *report) doing(w *api.PeerWork) {
	n := len(r.Running)
	w.Running = uint64(n)
	w.Compiling = uint64(min(max(r.Compiling, 0), n))
	told := r.Permille[:min(len(r.Permille), n)]
	if len(told) == 0 {
		return
	}
	sum := 0.0
	for _, permille := range told {
		sum += float64(min(max(permille, 0), 1000)) / 1000
	}
	mean := sum / float64(len(told))
	w.Progress = &mean
}

// tallyRunning counts as running also what peers say that they run: a keeper hears the beats of some members only.
func tallyRunning(s *api.Status, reports map[protocol.PeerID]*report) {
	seen := make(map[running]bool) // a task and its copy are one
	stages := make([]uint64, len(s.Stages))
	for _, r := range reports {
		for _, t := range r.Running[:min(len(r.Running), maxRunning)] {
			if int(t.Stage) < len(stages) && !seen[t] {
				seen[t] = true
				stages[t.Stage]++
			}
		}
	}
	for i := range s.Stages {
		c := &s.Stages[i].Counts
		if more := min(stages[i]-min(stages[i], c.Running), c.Pending); more > 0 {
			c.Running, c.Pending = c.Running+more, c.Pending-more
			s.Running, s.Pending = s.Running+more, s.Pending-more
		}
	}
}

// Watch implements api.Jobs.
func (b *backend) Watch(ctx context.Context, text string, f func(api.Status) error) error {
	_, _, err := b.watch(ctx, text, f)
	return err
}

// watch gives the view that showed the job's end, for those who go on from there: the next peer that is asked may not
// have heard of the end.
func (b *backend) watch(ctx context.Context, text string, f func(api.Status) error) (*view, *job.Signed, error) {
	id, err := parseJob(text)
	if err != nil {
		return nil, nil, err
	}
	changed, end := b.n.watchers.watch(id)
	defer end()
	for {
		v, signed, err := b.known(ctx, text)
		if err != nil {
			return nil, nil, err
		}
		if err := f(b.status(v, signed)); err != nil {
			return nil, nil, err
		}
		if v.ended() {
			return v, signed, nil
		}
		if err := b.pause(ctx, id, changed, v.peer == "" && v.Keeper); err != nil {
			return nil, nil, err
		}
	}
}

// pause waits for the next look at a job: for a change where this peer hears of all, else for pollEvery; and as long as
// WatchRate wants, unless the job has ended. A beat that changes only what runs is no change, hence the longest wait.
func (b *backend) pause(ctx context.Context, id protocol.JobID, changed <-chan struct{}, told bool) error {
	least := time.NewTimer(time.Second / api.WatchRate)
	defer least.Stop()
	most := time.NewTimer(pollEvery)
	defer most.Stop()
	if told {
		most.Reset(2 * pollEvery)
	}
	for early, news := true, false; ; {
		select {
		case <-least.C:
			if news {
				return nil
			}
			early = false
		case <-changed:
			if !early || b.over(ctx, id) {
				return nil
			}
			news = true
		case <-most.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-b.n.ctx.Done():
			return explain(errClosing)
		}
	}
}

// over tells whether a job has ended, as far as this peer knows.
func (b *backend) over(ctx context.Context, id protocol.JobID) (ended bool) {
	err := b.n.driver.ask(ctx, func(m machine) {
		v, ok := m.View(id)
		ended = ok && v.State != protocol.JobRunning
	})
	return ended || err != nil
}

// verbs are the owner's orders.
var verbs = map[api.Verb]protocol.Verb{
	api.VerbCancel: protocol.VerbCancel, api.VerbRemove: protocol.VerbRemove, api.VerbPause: protocol.VerbPause,
	api.VerbResume: protocol.VerbResume, api.VerbRetry: protocol.VerbRetry,
}

// Control implements api.Jobs.
func (b *backend) Control(ctx context.Context, text string, verb api.Verb) (api.Summary, error) {
	order, ok := verbs[verb]
	if !ok {
		return api.Summary{}, api.Errorf(api.KindInvalid, "order %.40q: want cancel, rm, pause, resume or retry", verb)
	}
	v, signed, err := b.known(ctx, text)
	if err != nil {
		return api.Summary{}, err
	}
	if owner := signed.Manifest.Owner; owner != b.n.home.ownerID {
		return api.Summary{}, api.Errorf(api.KindForbidden, "job %s belongs to %s: only its owner's key can %s it", signed.ID, owner, verb).
			WithAdvice("run it on a peer that has the owner's key (owner.key in its home)")
	}
	if v.ended() && order != protocol.VerbRemove {
		if verb == api.VerbCancel && v.state() == protocol.JobCancelled {
			return summary(v, signed), nil
		}
		if verb != api.VerbRetry || v.state() != protocol.JobFailed {
			return api.Summary{}, api.Errorf(api.KindConflict, "job %s is %s already: it can't be ordered to %s", signed.ID, stateOf(v), verb).
				WithAdvice("`mesh rm` removes an ended job with its results")
		}
	}
	if order == protocol.VerbRemove && !v.ended() {
		return api.Summary{}, api.Errorf(api.KindConflict, "job %s is not at its end", signed.ID).WithAdvice("cancel it first")
	}
	if order == protocol.VerbRetry && !v.ended() {
		return api.Summary{}, api.Errorf(api.KindConflict, "job %s has not failed", signed.ID).WithAdvice("its failed attempts are made again as long as it runs")
	}
	rec, err := b.sign(ctx, signed, order)
	if err != nil {
		return api.Summary{}, explain(err)
	}
	if err := b.order(ctx, v, signed, rec); err != nil {
		return api.Summary{}, err
	}
	if v, signed, err = b.known(ctx, text); err != nil {
		return api.Summary{}, err
	}
	return summary(v, signed), nil
}

// sign makes an order that stands against all that this peer has seen of its owner.
func (b *backend) sign(ctx context.Context, signed *job.Signed, verb protocol.Verb) (protocol.Record, error) {
	sequence := uint64(time.Now().UnixMilli())
	err := b.n.driver.ask(ctx, func(m machine) {
		for _, rec := range m.Records(signed.ID) {
			if c, ok := rec.Body.(*protocol.Control); ok {
				sequence = max(sequence, c.Sequence+1)
			}
		}
	})
	if err != nil {
		return protocol.Record{}, err
	}
	return protocol.SignRecord(b.n.owner, &protocol.Control{Job: signed.ID, Sequence: sequence, Verb: verb})
}

// order brings a Control to this peer's machine, where it knows the job, and to the job's keepers, where it keeps none.
func (b *backend) order(ctx context.Context, v *view, signed *job.Signed, rec protocol.Record) error {
	err := b.n.driver.settle(ctx, market.Ordered{Record: rec})
	if err != nil && !errors.Is(err, market.ErrNoJob) {
		return explain(err)
	}
	if v.peer == "" && v.Keeper {
		return nil
	}
	told := err == nil
	var last error
	targets := b.n.source(signed.ID, v).from
	for _, p := range targets {
		_, err := b.n.query.ask(ctx, p, question{Job: signed.ID.String(), Ask: askControl, Record: rec.Raw})
		if err == nil {
			return nil // it tells the others
		}
		last = err
	}
	if told {
		return nil
	}
	return api.Errorf(api.KindUnavailable, "no keeper of job %s could be told: %w", signed.ID, last).WithAdvice("try again; the order was not given")
}

// Why implements api.Jobs.
func (b *backend) Why(ctx context.Context, text string) (api.Why, error) {
	v, signed, err := b.known(ctx, text)
	if err != nil {
		return api.Why{}, err
	}
	w := api.Why{Job: signed.ID.String(), State: stateOf(v), Reasons: []string{}}
	add := func(format string, args ...any) { w.Reasons = append(w.Reasons, fmt.Sprintf(format, args...)) }
	if reason := v.why(&signed.Manifest); reason != "" {
		add("%s", reason)
	}
	if v.ended() {
		return w, nil
	}
	if !v.Keeper {
		add("no keeper of the job answers: this is what %s has heard of it", whoSays(v))
	}
	for i := range v.Stages {
		s, c := &v.Stages[i], v.Stages[i].counts()
		switch name := signed.Manifest.Stages[i].Name; {
		case !s.Open:
			add("stage %q waits for the results of the stage that it reads", name)
		case c.Pending > 0 && c.Running == 0:
			add("stage %q: %s to run and none running: no member with a free slot is able to run them", name, count(c.Pending, "task"))
		case c.Pending > 0:
			add("stage %q: %s for a slot, %d running", name, count(c.Pending, "waiting task"), c.Running)
		}
	}
	if len(v.Failures) > 0 {
		add("attempts have failed: `mesh status` lists them")
	}
	return w, nil
}

func whoSays(v *view) string {
	if v.peer == "" {
		return "this peer"
	}
	return "peer " + v.peer.String()
}
