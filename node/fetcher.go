package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/compute-mesh/mesh/chunkstore"
	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

const (
	// fetchesAtOnce bounds the Fetch effects that are carried out at a time. Each has its own streams to holders; more
	// would only share the same line.
	fetchesAtOnce = 16
	// fetchRoots is how many roots one request to the exchange names, so that what is remembered of a large input's
	// fetch stays small.
	fetchRoots = 1024
)

// fetcher carries out Fetch effects. Everything that it brings is pinned for its job.
type fetcher struct {
	mesh    string
	content *content
	pins    *pins
	post    func(market.Input)
	log     *slog.Logger
	failed  atomic.Uint64

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	queue  []market.Fetch // bounded by what the machine has under way
	active int
}

func newFetcher(mesh string, c *content, p *pins, post func(market.Input), log *slog.Logger) *fetcher {
	f := &fetcher{mesh: mesh, content: c, pins: p, post: post, log: log}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	return f
}

// start begins fetches; it does not wait.
func (f *fetcher) start(list []market.Fetch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ctx.Err() != nil {
		return
	}
	f.queue = append(f.queue, list...)
	for n := len(f.queue); n > 0 && f.active < fetchesAtOnce; n-- {
		f.active++
		f.wg.Go(f.work)
	}
}

// close ends fetches; those not ended by then are not answered.
func (f *fetcher) close() {
	f.mu.Lock()
	f.cancel()
	f.mu.Unlock()
	f.wg.Wait()
}

func (f *fetcher) work() {
	for {
		f.mu.Lock()
		if len(f.queue) == 0 || f.ctx.Err() != nil {
			f.active--
			f.mu.Unlock()
			return
		}
		q := f.queue[0]
		f.queue = f.queue[1:]
		f.mu.Unlock()
		done := f.fetch(q)
		if done.Err != nil && f.ctx.Err() != nil {
			continue // closing: nothing was wrong
		}
		if done.Err != nil {
			f.failed.Add(1)
			f.log.Debug("fetch failed", "job", q.Job, "kind", q.Kind, "error", done.Err)
		}
		f.post(done)
	}
}

// fetch carries out one Fetch.
func (f *fetcher) fetch(q market.Fetch) market.Fetched {
	from := source{job: q.Job, from: q.From, limit: q.Limit}
	done := market.Fetched{ID: q.ID}
	switch q.Kind {
	case market.FetchManifest:
		done.Job, done.Err = f.manifest(q.Job, from)
	case market.FetchJob:
		done.Groups, done.Err = f.job(q, from)
	case market.FetchPage:
		done.Data, done.Err = f.page(q.Root, from)
	case market.FetchSeal:
		done.Err = f.seal(q.Root, from)
	case market.LoadPage:
		done.Data, done.Err = f.content.chunk(f.ctx, q.Root, from)
	case market.FetchOutputs:
		done.Err = f.keep(q.Roots, from)
	default:
		done.Err = fmt.Errorf("node: fetch of kind %d: unknown", q.Kind)
	}
	return done
}

// keep brings files and chunks, and pins them for the job.
func (f *fetcher) keep(roots []cid.Cid, from source) error {
	for len(roots) > 0 {
		n := min(len(roots), fetchRoots)
		hold := f.pins.hold()
		if err := f.content.fetch(f.ctx, roots[:n], from); err != nil {
			hold.Release()
			return err
		}
		f.pins.add(groupSet(from.job, from.group), hold, roots[:n]...)
		if f.pins.full() {
			if err := f.pins.flush(); err != nil {
				return err
			}
		}
		roots = roots[n:]
	}
	return nil
}

// read is keep of one chunk that is looked into.
func (f *fetcher) read(root cid.Cid, from source) ([]byte, error) {
	hold := f.pins.hold()
	if data, err := f.content.local(f.ctx, root); err == nil {
		f.pins.add(groupSet(from.job, from.group), hold, root)
		return data, nil
	}
	hold.Release()
	if err := f.keep([]cid.Cid{root}, from); err != nil {
		return nil, err
	}
	return f.content.store.Get(f.ctx, root)
}

// manifest brings a job's manifest; one that is not signed, not valid or of another mesh is refused.
func (f *fetcher) manifest(id protocol.JobID, from source) (*job.Signed, error) {
	return openManifest(f.ctx, f.content, f.mesh, id, from)
}

func openManifest(ctx context.Context, c *content, mesh string, id protocol.JobID, from source) (*job.Signed, error) {
	root := id.CID()
	if !root.Defined() {
		return nil, fmt.Errorf("node: job %q: not a CID", string(id))
	}
	raw, err := c.chunk(ctx, root, from)
	if err != nil {
		return nil, err
	}
	signed, err := job.Open(raw)
	if err != nil {
		return nil, err
	}
	if signed.ID != id {
		return nil, fmt.Errorf("node: job %s: its manifest's CID is %s", id, signed.ID)
	}
	return signed, signed.Manifest.CheckMesh(mesh)
}

// job brings all that a keeper of the groups has to have: of each the manifest and the input of its tasks, with the
// index on the way to it; with group 0 programs and files. It tells which groups are here as a whole. What there is no
// room for ends it, and then it gives back some of the room that it took.
func (f *fetcher) job(q market.Fetch, from source) (got protocol.GroupSet, err error) {
	var sizes [protocol.MaxGroups]uint64
	for g := range q.Signed.Manifest.Groups {
		if !q.Groups.Has(g) {
			continue
		}
		from.group = g
		size, fault := f.group(q.Signed, g, from)
		if fault == nil {
			sizes[g] = size
			got |= 1 << g
			continue
		}
		err = cmp.Or(err, fault)
		if errors.Is(fault, chunkstore.ErrQuota) && !q.Kept {
			f.giveBack(q.Job, g)
			return f.makeRoom(q.Job, got, &sizes), err
		}
	}
	return got, err
}

// roomPart is the part of a full store that a keeper of input leaves for what runs here: for outputs, and the input of
// other tasks.
const roomPart = 8

// makeRoom gives groups back, the last first, until a part of the store is free. It tells which it keeps.
func (f *fetcher) makeRoom(id protocol.JobID, groups protocol.GroupSet, sizes *[protocol.MaxGroups]uint64) protocol.GroupSet {
	free := uint64(0)
	for g := protocol.MaxGroups - 1; g > 0 && free < uint64(f.content.store.Quota())/roomPart; g-- {
		if groups.Has(g) {
			f.giveBack(id, g)
			groups &^= 1 << g
			free += sizes[g]
		}
	}
	return groups
}

// giveBack lets go of a group that is not kept after all. What comes with group 0 is of use while the job runs here.
func (f *fetcher) giveBack(id protocol.JobID, group int) {
	if group == 0 {
		return
	}
	if err := f.pins.drop(market.Drop{Job: id, Groups: 1 << group}); err != nil {
		f.log.Warn("chunks that are not kept stay", "job", id, "group", group, "error", err)
	}
}

// group brings what the keeper of a chunk group has to have, and tells the bytes of its input.
func (f *fetcher) group(signed *job.Signed, g int, from source) (size uint64, err error) {
	if err := f.content.store.PutBlock(f.ctx, signed.ID.CID(), signed.Raw); err != nil {
		return 0, err
	}
	if err := f.keep([]cid.Cid{signed.ID.CID()}, from); err != nil {
		return 0, err
	}
	m := &signed.Manifest
	if g == 0 {
		if err := f.keep(filesOf(m), from); err != nil {
			return 0, err
		}
	}
	for i := range m.Stages {
		if s := &m.Stages[i].Source; s.Kind == job.SourceIndex {
			n, err := f.input(s.Index, m.GroupTasks(protocol.StageIndex(i), g), from)
			if err != nil {
				return 0, err
			}
			size += n
		}
	}
	return size, nil
}

// filesOf lists the roots of a job's programs and files.
func filesOf(m *job.Manifest) (roots []cid.Cid) {
	for i := range m.Stages {
		roots = append(roots, m.Stages[i].Program.Root)
	}
	for _, file := range m.Files {
		roots = append(roots, file.Root)
	}
	return roots
}

// input brings the input of some tasks, and the parts of its index that name it. It tells the bytes.
func (f *fetcher) input(root cid.Cid, tasks protocol.Range, from source) (size uint64, err error) {
	if err := f.keep([]cid.Cid{root}, from); err != nil {
		return 0, err
	}
	index, err := job.ReadIndex(root, f.content.getter(f.ctx, from))
	if err != nil {
		return 0, err
	}
	for t := tasks.Lo; t < tasks.Hi; {
		block := t.Block()
		roots, err := index.Chunks(block)
		if err != nil {
			return 0, err
		}
		for ; t < tasks.Hi && t.Block() == block; t++ {
			e, err := index.Entry(t)
			if err != nil {
				return 0, err
			}
			if e.Root.Defined() {
				roots = append(roots, e.Root)
			}
			size += e.Size
		}
		if err := f.keep(roots, from); err != nil {
			return 0, err
		}
	}
	return size, nil
}

// page brings a page and the files it names.
func (f *fetcher) page(root cid.Cid, from source) ([]byte, error) {
	data, err := f.read(root, from)
	if err != nil {
		return nil, err
	}
	page, err := protocol.DecodePage(root, data)
	if err != nil {
		return nil, err
	}
	return data, f.keep(page.Roots(), from)
}

// seal brings what a seal's root names: a leaf with its parts, packs and outputs, or a node.
func (f *fetcher) seal(root cid.Cid, from source) error {
	data, err := f.read(root, from)
	if err != nil {
		return err
	}
	if _, err := job.DecodeNode(data); err == nil {
		return nil
	} else if !errors.Is(err, job.ErrMalformed) {
		return err
	}
	leaf, err := job.ReadLeaf(root, f.content.getter(f.ctx, from))
	if err != nil {
		return err
	}
	return f.keep(append(leaf.Chunks(), leaf.Outputs()...), from)
}
