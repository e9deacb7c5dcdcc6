package node

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/compute-mesh/mesh/chunkstore"
	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/node/api"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/dustin/go-humanize"
	"github.com/ipfs/go-cid"
)

// Submit implements api.Submitter.
func (b *backend) Submit(ctx context.Context, r api.SubmitRequest) (api.Submitted, error) {
	if err := b.n.commit.waits(); err != nil {
		return api.Submitted{}, explain(err)
	}
	hold := b.n.store.Hold()
	defer hold.Release()
	spec, index, err := b.spec(ctx, &r)
	if err != nil {
		return api.Submitted{}, explain(err)
	}
	manifest, err := job.Build(*spec)
	if err != nil {
		return api.Submitted{}, api.Errorf(api.KindInvalid, "%w", err)
	}
	if err := planAll(&manifest, index); err != nil {
		return api.Submitted{}, api.Errorf(api.KindInvalid, "%w", err)
	}
	signed, err := job.Sign(manifest, b.n.home.owner)
	if err != nil {
		return api.Submitted{}, explain(err)
	}
	if err := b.keep(ctx, signed, index); err != nil {
		return api.Submitted{}, explain(err)
	}
	if err := b.n.driver.settle(ctx, market.Submit{Job: signed}); err != nil {
		return api.Submitted{}, explain(err)
	}
	out := api.Submitted{Job: signed.ID.String(), Name: manifest.Name, Warnings: b.warnings(&manifest)}
	for i := range manifest.Stages {
		s := &manifest.Stages[i]
		out.Tasks += s.Tasks
		out.Stages = append(out.Stages, api.Stage{Name: s.Name, Counts: api.Counts{Tasks: s.Tasks, Pending: s.Tasks}, Bytes: s.Source.Bytes})
	}
	return out, nil
}

// spec turns a request into what a manifest is built from.
func (b *backend) spec(ctx context.Context, r *api.SubmitRequest) (_ *job.Spec, index *job.Index, err error) {
	if (r.Array == nil) == (r.Index == "") {
		return nil, nil, api.Errorf(api.KindInvalid, "a job has either an array or an input").
			WithAdvice("give one of --array, --input and --args-from")
	}
	s := job.DefaultSpec()
	s.Mesh, s.Name, s.Owner, s.Submitter, s.Now = b.n.cfg.Mesh, r.Name, b.n.home.ownerID, b.n.home.peer, time.Now()
	rand.Read(s.Nonce[:])
	if s.Map, err = b.command(ctx, &r.Map); err != nil {
		return nil, nil, err
	}
	if r.Reduce != nil {
		reduce, err := b.command(ctx, r.Reduce)
		if err != nil {
			return nil, nil, err
		}
		s.Reduce = &reduce
	}
	if r.Array != nil {
		s.Array = *r.Array
	} else if s.Input, index, err = b.input(ctx, r.Index); err != nil {
		return nil, nil, err
	}
	if r.Split != "" {
		split, err := chunkstore.ParseSplit(r.Split)
		if err != nil {
			return nil, nil, api.Errorf(api.KindInvalid, "%w", err)
		}
		s.Split = split.String()
	}
	for _, f := range r.Files {
		root, size, err := b.here(ctx, f.CID)
		if err != nil {
			return nil, nil, fmt.Errorf("file %q: %w", f.Name, err)
		}
		s.Files = append(s.Files, job.File{Name: f.Name, Root: root, Size: uint64(size)})
	}
	s.FanIn, s.Env, s.OkExit, s.Priority = r.FanIn, r.Env, r.OkExit, r.Priority
	s.KeepGoing, s.Nondeterministic = r.KeepGoing, r.Nondeterministic
	if r.Retries != nil {
		s.Retries = *r.Retries
	}
	if r.Replicas != nil {
		s.Replicas = *r.Replicas
	}
	if r.Timeout != 0 {
		s.Limits.Timeout = time.Duration(r.Timeout)
	}
	if r.Memory != 0 {
		s.Limits.Memory = r.Memory
	}
	if r.Keep != 0 {
		s.Retention = time.Duration(r.Keep)
	}
	return &s, index, nil
}

// here brings content that a submit names, and tells its size.
func (b *backend) here(ctx context.Context, text string) (root cid.Cid, size int64, err error) {
	if root, err = parseCID(text); err != nil {
		return root, 0, err
	}
	if err := b.n.content.fetch(ctx, []cid.Cid{root}, source{}); err != nil {
		return root, 0, err
	}
	size, err = b.n.store.FileSize(ctx, root)
	return root, size, err
}

func (b *backend) command(ctx context.Context, p *api.Program) (job.Command, error) {
	root, size, err := b.here(ctx, p.Root)
	if err != nil {
		return job.Command{}, fmt.Errorf("program %q: %w", p.Name, err)
	}
	if err := b.checkProgram(ctx, p.Name, root); err != nil {
		return job.Command{}, err
	}
	return job.Command{Program: job.File{Name: p.Name, Root: root, Size: uint64(size)}, Args: p.Args}, nil
}

func (b *backend) input(ctx context.Context, text string) (job.Input, *job.Index, error) {
	root, err := parseCID(text)
	if err != nil {
		return job.Input{}, nil, err
	}
	index, err := job.ReadIndex(root, b.n.content.getter(ctx, source{}))
	if err != nil {
		return job.Input{}, nil, fmt.Errorf("input: %w", err)
	}
	return index.Input(), index, nil
}

// planAll plans the tasks of the first stage whose arguments may fail, so that none does on a peer.
func planAll(m *job.Manifest, index *job.Index) error {
	n := m.Stages[0].Tasks
	if index == nil {
		if n > 0 {
			_, err := m.Task(0, protocol.TaskIndex(n-1), job.Entry{})
			return err
		}
		return nil
	}
	next := protocol.TaskIndex(0)
	for e, err := range index.All(protocol.Range{Hi: protocol.TaskIndex(n)}) {
		if err == nil {
			_, err = m.Task(0, next, e)
		}
		if err != nil {
			return err
		}
		next++
	}
	return nil
}

// keep stores the manifest and pins, durably, all that the job is made of.
func (b *backend) keep(ctx context.Context, signed *job.Signed, index *job.Index) error {
	n := b.n
	if err := n.store.PutBlock(ctx, signed.ID.CID(), signed.Raw); err != nil {
		return err
	}
	pin := func(roots ...cid.Cid) error {
		n.pins.add(setOf(signed.ID), nil, roots...)
		if n.pins.full() {
			return n.pins.flush()
		}
		return nil
	}
	if err := pin(append(filesOf(&signed.Manifest), signed.ID.CID())...); err != nil {
		return err
	}
	if index != nil {
		if err := pinIndex(index, pin); err != nil {
			return err
		}
	}
	return durable(ctx, n.pins, n.store)
}

// pinIndex pins an input with its index.
func pinIndex(index *job.Index, pin func(...cid.Cid) error) error {
	if err := pin(index.Input().Root); err != nil {
		return err
	}
	for b := range protocol.Block(protocol.Blocks(index.Input().Count)) {
		roots, err := index.Chunks(b)
		if err != nil {
			return err
		}
		entries, err := index.Block(b)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.Root.Defined() {
				roots = append(roots, e.Root)
			}
		}
		if err := pin(roots...); err != nil {
			return err
		}
	}
	return nil
}

// warnings tell what may keep the job from getting on.
func (b *backend) warnings(m *job.Manifest) (list []string) {
	need := uint64(0)
	for i := range m.Stages {
		need = max(need, m.Stages[i].Limits.Memory)
	}
	if lent := uint64(b.n.cfg.Memory); need > lent {
		list = append(list, fmt.Sprintf("a task needs %s of memory, this peer lends %s: it can only run on others", humanize.IBytes(need), humanize.IBytes(lent)))
	}
	peers := len(b.n.neighbours())
	if b.n.cfg.Slots == 0 && peers == 0 {
		list = append(list, "this peer runs no tasks (--slots 0) and knows no other: the job waits for one")
	}
	if peers < m.Replicas {
		what := fmt.Sprintf("%s connected, %d wanted to keep the job", count(uint64(peers), "other peer"), m.Replicas)
		if peers == 0 {
			what = "no other peer is connected: this machine must stay on until the job has ended"
		}
		list = append(list, what)
	}
	return list
}

// acceptStill is how long nothing may move before Accepted takes what there is for all that there will be.
const acceptStill = 15 * time.Second

// Accepted implements api.Submitter.
func (b *backend) Accepted(ctx context.Context, text string) (out api.Acceptance, err error) {
	id, err := parseJob(text)
	if err != nil {
		return out, err
	}
	changed, end := b.n.watchers.watch(id)
	defer end()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	moved, keepers, sent := time.Now(), -1, int64(-1)
	for {
		r, err := b.n.report(ctx, id)
		if err != nil {
			return out, explain(err)
		}
		if r == nil {
			v, _, err := b.known(ctx, text)
			if err != nil {
				return out, err
			}
			return acceptance(&v.report, ""), nil
		}
		out = acceptance(r, b.n.home.peer.String())
		if out.Accepted || protocol.JobState(r.State) != protocol.JobRunning || out.Keepers >= min(out.Wanted, len(b.n.neighbours())) {
			return out, nil
		}
		if bytes := b.n.exchange.Stats().Total.BytesOut; out.Keepers != keepers || bytes != sent {
			moved, keepers, sent = time.Now(), out.Keepers, bytes
		}
		if time.Since(moved) > acceptStill {
			return out, nil
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			return out, ctx.Err()
		case <-b.n.ctx.Done():
			return out, explain(errClosing)
		}
	}
}

func acceptance(r *report, self string) api.Acceptance {
	return api.Acceptance{Job: r.Job, Accepted: r.Accepted, Wanted: r.Wanted, Keepers: r.Copies}
}
