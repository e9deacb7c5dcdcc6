package node

import (
	"bytes"
	"context"
	"io"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/node/api"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// resultsAhead is how many tasks' outputs are fetched at a time.
const resultsAhead = 64

// Results implements api.Outcomes.
func (b *backend) Results(ctx context.Context, text string, o api.ResultsOptions, sink api.ResultsSink) (api.ResultsSummary, error) {
	look := b.known
	if o.Wait {
		look = func(ctx context.Context, text string) (*view, *job.Signed, error) {
			return b.watch(ctx, text, func(api.Status) error { return nil })
		}
	}
	v, signed, err := look(ctx, text)
	if err != nil {
		return api.ResultsSummary{}, err
	}
	if err := presentable(v, signed, o.Partial); err != nil {
		return api.ResultsSummary{}, err
	}
	m := &signed.Manifest
	g := &giver{b: b, ctx: ctx, from: b.n.source(signed.ID, v), files: o.Files, sink: sink}
	stage := &m.Stages[m.OutputStage()]
	if g.read, err = b.reader(ctx, v, signed, g.from); err != nil {
		return g.sum, explain(err)
	}
	if stage.Source.Kind == job.SourceIndex {
		if g.index, err = job.ReadIndex(stage.Source.Index, b.n.content.getter(ctx, g.from)); err != nil {
			return g.sum, explain(err)
		}
	}
	info := api.ResultsInfo{
		Job: signed.ID.String(), State: stateOf(v), Stage: stage.Name, Tasks: stage.Tasks,
		Split: m.Stages[0].Source.Split, Mapped: m.OutputStage() == 0,
	}
	if err := sink.Begin(info); err != nil {
		return g.sum, err
	}
	for lo := protocol.TaskIndex(0); uint64(lo) < stage.Tasks; lo += resultsAhead {
		if err := g.give(protocol.Range{Lo: lo, Hi: min(lo+resultsAhead, protocol.TaskIndex(stage.Tasks))}); err != nil {
			return g.sum, explain(err)
		}
	}
	return g.sum, nil
}

// presentable says why a job's results can't be had as a whole.
func presentable(v *view, signed *job.Signed, partial bool) error {
	if partial {
		return nil
	}
	s := summary(v, signed)
	switch {
	case !v.ended():
		return api.Errorf(api.KindUnfinished, "job %s has not ended: %d of %s done", signed.ID, s.Done, count(s.Tasks, "task")).
			WithAdvice("wait with --wait, or take what there is with --partial")
	case v.state() != protocol.JobDone:
		why := ""
		if s.Reason != "" {
			why = ": " + s.Reason
		}
		return api.Errorf(api.KindFailed, "job %s is %s%s", signed.ID, s.State, why).
			WithAdvice("`mesh status` and `mesh logs` say more; --partial gives what there is")
	}
	return nil
}

// resultReader gives the result of a task; ok tells whether there is one.
type resultReader func(i protocol.TaskIndex) (r protocol.Result, ok bool, err error)

// reader reads the results of a job's last stage: from its top seal, or from what seals and pages there are.
func (b *backend) reader(ctx context.Context, v *view, signed *job.Signed, from source) (resultReader, error) {
	last := signed.Manifest.OutputStage()
	n := signed.Manifest.Stages[last].Tasks
	if text := v.Stages[last].Top; text != "" {
		root, err := parseCID(text)
		if err != nil {
			return nil, err
		}
		results := job.ReadResults(root, n, b.n.content.getter(ctx, from))
		return func(i protocol.TaskIndex) (protocol.Result, bool, error) {
			r, err := results.Result(i)
			return r, err == nil, err
		}, nil
	}
	p, err := b.parts(ctx, v, signed.ID, last, n, from)
	return p.result, err
}

// parts is what there is of the results of a stage without top seal.
type parts struct {
	content *content
	ctx     context.Context
	from    source
	n       uint64
	seals   map[protocol.Block]cid.Cid
	dones   map[protocol.Block][]*protocol.Done

	block   protocol.Block // that is at hand
	sealed  *job.Results
	results map[protocol.TaskIndex]protocol.Result
}

func (b *backend) parts(ctx context.Context, v *view, id protocol.JobID, stage protocol.StageIndex, n uint64, from source) (*parts, error) {
	p := &parts{
		content: b.n.content, ctx: ctx, from: from, n: n, block: ^protocol.Block(0),
		seals: make(map[protocol.Block]cid.Cid), dones: make(map[protocol.Block][]*protocol.Done),
	}
	var records []protocol.Record
	var err error
	if v.peer == "" {
		records, err = b.n.resultRecords(ctx, id)
	} else {
		records, err = b.n.query.records(ctx, v.peer, id)
	}
	for i := range records {
		switch body := records[i].Body.(type) {
		case *protocol.Seal:
			if body.Stage == stage && body.Level == 0 {
				p.seals[protocol.Block(body.Number)] = body.Root
			}
		case *protocol.Done:
			if body.Stage == stage {
				p.dones[body.Range.Lo.Block()] = append(p.dones[body.Range.Lo.Block()], body)
			}
		}
	}
	return p, err
}

func (p *parts) result(i protocol.TaskIndex) (r protocol.Result, ok bool, err error) {
	if err := p.open(i.Block()); err != nil {
		return r, false, err
	}
	if p.sealed != nil {
		r, err = p.sealed.Result(i % protocol.BlockSize)
		return r, err == nil, err
	}
	r, ok = p.results[i]
	return r, ok, nil
}

// open takes a block to hand. A page that nobody gives is passed over: its tasks are missing.
func (p *parts) open(b protocol.Block) error {
	if p.block == b {
		return nil
	}
	p.block, p.sealed, p.results = b, nil, make(map[protocol.TaskIndex]protocol.Result)
	if root, ok := p.seals[b]; ok {
		p.sealed = job.ReadResults(root, b.Range(p.n).Len(), p.content.getter(p.ctx, p.from))
		return nil
	}
	for _, done := range p.dones[b] {
		data, err := p.content.chunk(p.ctx, done.Page, p.from)
		if p.ctx.Err() != nil {
			return p.ctx.Err()
		}
		if err != nil {
			continue
		}
		page, err := protocol.DecodePage(done.Page, data)
		if err != nil {
			continue
		}
		for k := range page.Results {
			i := page.Range.Lo + protocol.TaskIndex(k)
			if _, known := p.results[i]; !known && done.Range.Contains(i) {
				p.results[i] = page.Results[k]
			}
		}
	}
	return nil
}

// giver hands results to a sink.
type giver struct {
	b     *backend
	ctx   context.Context
	from  source
	read  resultReader
	index *job.Index // of the stage's input; nil: none
	files bool
	sink  api.ResultsSink
	sum   api.ResultsSummary
}

// give hands out the results of some tasks, after fetching what they name at once.
func (g *giver) give(tasks protocol.Range) error {
	results := make(map[protocol.TaskIndex]protocol.Result)
	var roots []cid.Cid
	add := func(o *protocol.Output) {
		if o.Root.Defined() {
			roots = append(roots, o.Root)
		}
	}
	for i := tasks.Lo; i < tasks.Hi; i++ {
		r, ok, err := g.read(i)
		if err != nil {
			return err
		}
		if !ok {
			g.sum.Missing++
			continue
		}
		results[i] = r
		add(&r.Stdout)
		for k := range r.Files {
			if g.files {
				add(&r.Files[k].Output)
			}
		}
	}
	hold := g.b.n.store.Hold()
	defer hold.Release()
	if err := g.b.n.content.fetch(g.ctx, roots, g.from); err != nil {
		return err
	}
	for i := tasks.Lo; i < tasks.Hi; i++ {
		if r, ok := results[i]; ok {
			if err := g.task(i, &r); err != nil {
				return err
			}
		}
	}
	return nil
}

func (g *giver) task(i protocol.TaskIndex, r *protocol.Result) error {
	input := ""
	if g.index != nil {
		entry, err := g.index.Entry(i)
		if err != nil {
			return err
		}
		input = entry.Name
	}
	g.sum.Outputs++
	if err := g.output(api.Output{Task: uint64(i), Input: input, Bytes: r.Stdout.Size}, &r.Stdout); err != nil {
		return err
	}
	for k := range r.Files {
		f := &r.Files[k]
		g.sum.Files++
		if !g.files {
			continue
		}
		if err := g.output(api.Output{Task: uint64(i), File: f.Name, Input: input, Bytes: f.Size}, &f.Output); err != nil {
			return err
		}
	}
	return nil
}

func (g *giver) output(o api.Output, out *protocol.Output) error {
	var r io.Reader = bytes.NewReader(out.Inline)
	if out.Root.Defined() {
		file, err := g.b.n.store.FileReader(g.ctx, out.Root)
		if err != nil {
			return err
		}
		r = file
	}
	g.sum.Bytes += out.Size
	return g.sink.Output(o, r)
}
