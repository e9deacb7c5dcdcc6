package node

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/node/api"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

const (
	// followEvery is how often a followed log is looked at: what a person takes for at once.
	followEvery = 500 * time.Millisecond
	// maxLogText bounds the text of one entry that is sent.
	maxLogText = 32 << 10
	// maxFollowed bounds the tasks whose logs are followed at a time.
	maxFollowed = 1024
)

// logReader shows the logs of a job's tasks.
type logReader struct {
	b      *backend
	ctx    context.Context
	view   *view
	signed *job.Signed
	from   source
	emit   func(api.LogEntry) error

	told   map[taskKey]bool     // whose final log was shown
	shown  map[taskKey]followed // how much of a running task's log was
	failed map[failureKey]bool  // failed attempts whose log was shown
}

type taskKey struct {
	stage protocol.StageIndex
	task  protocol.TaskIndex
}

type failureKey struct {
	taskKey
	attempt uint32
	peer    string
}

type followed struct {
	since  int64 // of the run
	offset int64
}

type taskLog struct {
	task   protocol.TaskIndex
	worker protocol.PeerID
	log    protocol.Output
}

// Logs implements api.Outcomes.
func (b *backend) Logs(ctx context.Context, text string, o api.LogsOptions, f func(api.LogEntry) error) error {
	v, signed, err := b.known(ctx, text)
	if err != nil {
		return err
	}
	l := &logReader{
		b: b, ctx: ctx, view: v, signed: signed, from: b.n.source(signed.ID, v), emit: f,
		told: make(map[taskKey]bool), shown: make(map[taskKey]followed), failed: make(map[failureKey]bool),
	}
	tasks, err := l.chosen(&o)
	if err != nil {
		return err
	}
	for {
		if err := l.look(tasks, o.Follow); err != nil {
			return explain(err)
		}
		if !o.Follow || l.view.ended() {
			return nil
		}
		select {
		case <-time.After(followEvery):
		case <-ctx.Done():
			return ctx.Err()
		case <-b.n.ctx.Done():
			return explain(errClosing)
		}
		if l.view, _, err = b.known(ctx, text); err != nil {
			return err
		}
	}
}

// chosen is the ranges of tasks, by stage, that the options name.
func (l *logReader) chosen(o *api.LogsOptions) (map[protocol.StageIndex]protocol.Range, error) {
	tasks := make(map[protocol.StageIndex]protocol.Range)
	stages := l.signed.Manifest.Stages
	for i := range stages {
		if o.Stage == "" && (o.Task == nil || i == 0) || o.Stage == stages[i].Name {
			tasks[protocol.StageIndex(i)] = protocol.Range{Hi: protocol.TaskIndex(stages[i].Tasks)}
		}
	}
	if len(tasks) == 0 {
		var names []string
		for i := range stages {
			names = append(names, stages[i].Name)
		}
		return nil, api.Errorf(api.KindNotFound, "job %s has no stage %.40q; it has %s", l.signed.ID, o.Stage, strings.Join(names, ", "))
	}
	if o.Task != nil {
		for i, r := range tasks {
			t := protocol.TaskIndex(*o.Task)
			if !r.Contains(t) {
				return nil, api.Errorf(api.KindNotFound, "stage %q of job %s has no task %d; it has %s", stages[i].Name, l.signed.ID, t, count(r.Len(), "task"))
			}
			tasks[i] = protocol.Range{Lo: t, Hi: t + 1}
		}
	}
	return tasks, nil
}

// look shows what has not been shown yet: failed attempts, running tasks, then ended ones.
func (l *logReader) look(tasks map[protocol.StageIndex]protocol.Range, follow bool) error {
	for _, f := range l.view.Failures {
		if err := l.failure(tasks, &f); err != nil {
			return err
		}
	}
	if err := l.running(tasks); err != nil {
		return err
	}
	for i := range l.signed.Manifest.Stages {
		r, ok := tasks[protocol.StageIndex(i)]
		if !ok || l.view.Stages[i].Done == 0 {
			continue
		}
		if err := l.ended(protocol.StageIndex(i), r, follow); err != nil {
			return err
		}
	}
	return nil
}

func (l *logReader) failure(tasks map[protocol.StageIndex]protocol.Range, f *failure) error {
	at := failureKey{taskKey{protocol.StageIndex(f.Stage), protocol.TaskIndex(f.Task)}, f.Attempt, f.Peer}
	if r, ok := tasks[at.stage]; !ok || !r.Contains(at.task) || f.Log == "" || l.failed[at] {
		return nil
	}
	l.failed[at] = true
	delete(l.shown, at.taskKey)
	root, err := cid.Decode(f.Log)
	if err != nil {
		return nil
	}
	from := l.from
	if p := decodePeer(f.Peer); p != "" && !slices.Contains(from.from, p) {
		from.from = append([]protocol.PeerID{p}, from.from...)
	}
	text, err := l.text(protocol.Output{Root: root}, from)
	if err != nil {
		return l.say(at.taskKey, f.Peer, uint64(f.Attempt), "(the log of this attempt can't be had: "+detail(err.Error())+")\n")
	}
	return l.say(at.taskKey, f.Peer, uint64(f.Attempt), text)
}

// running shows what running tasks have written since the last look: here and at the peers near.
func (l *logReader) running(tasks map[protocol.StageIndex]protocol.Range) error {
	n := l.b.n
	id := l.signed.ID
	if l.view.ended() {
		return nil
	}
	for _, t := range n.runner.now(id) {
		ask := func(offset int64) tail { return n.tail(id, t.stage, t.index, offset) }
		if err := l.tail(tasks, taskKey{t.stage, t.index}, n.home.peer.String(), ask); err != nil {
			return err
		}
	}
	for p, r := range n.workers(l.ctx, id) {
		for _, t := range r.Running {
			key := taskKey{protocol.StageIndex(t.Stage), protocol.TaskIndex(t.Task)}
			ask := func(offset int64) tail {
				q := question{Job: id.String(), Ask: askTail, Stage: t.Stage, Task: t.Task, Offset: offset}
				if a, err := n.query.ask(l.ctx, p, q); err == nil && a.Tail != nil {
					return *a.Tail
				}
				return tail{}
			}
			if err := l.tail(tasks, key, p.String(), ask); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *logReader) tail(tasks map[protocol.StageIndex]protocol.Range, key taskKey, peer string, ask func(offset int64) tail) error {
	if r, ok := tasks[key.stage]; !ok || !r.Contains(key.task) || l.told[key] {
		return nil
	}
	at, known := l.shown[key]
	if !known && len(l.shown) >= maxFollowed {
		return nil
	}
	t := ask(at.offset)
	if !t.Running {
		return nil
	}
	if t.Since != at.since {
		if at = (followed{since: t.Since}); known {
			t = ask(0)
		}
	}
	if len(t.Data) > 0 {
		if err := l.say(key, peer, 0, string(t.Data)); err != nil {
			return err
		}
	}
	at.offset += int64(len(t.Data))
	l.shown[key] = at
	return nil
}

// ended shows the logs of tasks that are done, in task order; of one that was followed, what was not shown yet.
func (l *logReader) ended(stage protocol.StageIndex, tasks protocol.Range, follow bool) error {
	var listed *parts
	for b := tasks.Lo.Block(); uint64(b)*protocol.BlockSize < uint64(tasks.Hi); b++ {
		r := tasks.Intersect(b.Range(l.signed.Manifest.Stages[stage].Tasks))
		if l.all(stage, r) {
			continue
		}
		if listed == nil {
			var err error
			n := l.signed.Manifest.Stages[stage].Tasks
			if listed, err = l.b.parts(l.ctx, l.view, l.signed.ID, stage, n, l.from); err != nil {
				return err
			}
		}
		logs, err := l.block(stage, b, r, listed)
		if err != nil {
			return err
		}
		for i := r.Lo; i < r.Hi; i++ {
			key := taskKey{stage, i}
			log, ok := logs[i]
			if !ok || l.told[key] {
				continue
			}
			if err := l.final(key, &log); err != nil {
				return err
			}
			if follow {
				l.told[key] = true
			}
		}
	}
	return nil
}

func (l *logReader) all(stage protocol.StageIndex, r protocol.Range) bool {
	for i := r.Lo; i < r.Hi; i++ {
		if !l.told[taskKey{stage, i}] {
			return false
		}
	}
	return true
}

// block gathers the logs of a block from its pages.
func (l *logReader) block(stage protocol.StageIndex, b protocol.Block, r protocol.Range, listed *parts) (map[protocol.TaskIndex]taskLog, error) {
	pages, err := l.pagesOf(stage, r.Lo)
	if err != nil {
		return nil, err
	}
	for _, done := range listed.dones[b] {
		if x := done.Range.Intersect(r); x.Len() > 0 && !slices.Contains(pages, done.Page) {
			pages = append(pages, done.Page)
		}
	}
	logs := make(map[protocol.TaskIndex]taskLog)
	for _, c := range pages {
		data, err := l.b.n.content.chunk(l.ctx, c, l.from)
		if l.ctx.Err() != nil {
			return nil, l.ctx.Err()
		}
		if err != nil {
			continue // whoever had it is gone; other pages may have the task
		}
		page, err := protocol.DecodePage(c, data)
		if err != nil || page.Stage != stage || page.Job != l.signed.ID {
			continue
		}
		for k := range page.Results {
			i := page.Range.Lo + protocol.TaskIndex(k)
			if _, known := logs[i]; !known && r.Contains(i) {
				logs[i] = taskLog{i, page.Worker, page.Results[k].Log}
			}
		}
	}
	return logs, nil
}

func (l *logReader) pagesOf(stage protocol.StageIndex, t protocol.TaskIndex) ([]cid.Cid, error) {
	if l.view.peer == "" {
		return l.b.n.pages(l.ctx, l.signed.ID, stage, t)
	}
	return l.b.n.query.pages(l.ctx, l.view.peer, l.signed.ID, stage, t)
}

func (l *logReader) final(key taskKey, log *taskLog) error {
	if log.log.Size == 0 {
		return nil
	}
	text, err := l.text(log.log, l.from)
	if err != nil {
		return err
	}
	if at := l.shown[key]; at.offset > 0 {
		text = text[min(int64(len(text)), at.offset):]
		delete(l.shown, key)
	}
	return l.say(key, log.worker.String(), 0, text)
}

// text reads a log: at most the manifest's limit, which is a part of memory that a peer can spare.
func (l *logReader) text(o protocol.Output, from source) (string, error) {
	if !o.Root.Defined() {
		return string(o.Inline), nil
	}
	n := l.b.n
	hold := n.store.Hold()
	defer hold.Release()
	if err := n.content.fetch(l.ctx, []cid.Cid{o.Root}, from); err != nil {
		return "", err
	}
	r, err := n.store.FileReader(l.ctx, o.Root)
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(io.LimitReader(r, maxLog))
	return string(data), err
}

// maxLog bounds what is shown of one log.
const maxLog = 16 << 20

// say shows a part of a log, in entries of whole lines where there are any.
func (l *logReader) say(key taskKey, peer string, attempt uint64, text string) error {
	for len(text) > 0 {
		n := min(len(text), maxLogText)
		if n < len(text) {
			if k := strings.LastIndexByte(text[:n], '\n'); k >= 0 {
				n = k + 1
			}
		}
		e := api.LogEntry{
			Stage: l.signed.Manifest.Stages[key.stage].Name, Task: uint64(key.task), Attempt: attempt, Peer: peer,
			Text: strings.ToValidUTF8(text[:n], "\uFFFD"),
		}
		if err := l.emit(e); err != nil {
			return err
		}
		text = text[n:]
	}
	return nil
}
