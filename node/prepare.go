package node

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/compute-mesh/mesh/sandbox"
	"github.com/ipfs/go-cid"
)

const (
	// jobsPrepared bounds the jobs whose programs, files and index are at hand: more than run at a time.
	jobsPrepared = 32
	// joinAhead is how many outputs a reducer's input is fetched ahead: in memory are their small ones, at most 4 KiB
	// each.
	joinAhead = 64
	// chunksShown is the most chunks that a task reads as they are stored, and no copy of them: what names them crosses to
	// its process with the task, twice, as text of some 150 bytes each.
	chunksShown = 1024
	// joinBuffer gathers small outputs into larger writes.
	joinBuffer = 256 << 10
)

// preparer makes what a sandbox needs out of what a Run says: it brings a task's program, files and input, and shows
// them as host files.
type preparer struct {
	content *content
	pins    *pins
	files   *fileCache

	mu    sync.Mutex
	jobs  map[protocol.JobID]*jobFiles
	clock uint64
}

func newPreparer(c *content, p *pins, files *fileCache) *preparer {
	return &preparer{content: c, pins: p, files: files, jobs: make(map[protocol.JobID]*jobFiles)}
}

// prepared is a task whose host files are there until release.
type prepared struct {
	task    sandbox.Task
	cleanup []func()
}

func (p *prepared) release() {
	for _, f := range p.cleanup {
		f()
	}
	p.cleanup = nil
}

// jobFiles is what the tasks of a job have in common.
type jobFiles struct {
	used  uint64 // preparer.clock at the last use
	users int

	mu       sync.Mutex // held while something is brought or read
	ctx      context.Context
	from     source // of the task that holds mu
	in       []sandbox.File
	programs map[protocol.StageIndex]sandbox.ProgramRef
	indexes  map[protocol.StageIndex]*job.Index
	results  map[protocol.StageIndex]sealedResults
	releases []func()
	loaded   bool
}

// sealedResults are the results of the stage that a stage reads, under one root.
type sealedResults struct {
	root cid.Cid
	*job.Results
}

// open takes the job's files for use; leave ends that.
func (p *preparer) open(id protocol.JobID) *jobFiles {
	p.mu.Lock()
	defer p.mu.Unlock()
	j := p.jobs[id]
	if j == nil {
		p.evict()
		j = &jobFiles{
			programs: make(map[protocol.StageIndex]sandbox.ProgramRef),
			indexes:  make(map[protocol.StageIndex]*job.Index),
			results:  make(map[protocol.StageIndex]sealedResults),
		}
		p.jobs[id] = j
	}
	p.clock++
	j.used = p.clock
	j.users++
	return j
}

func (p *preparer) leave(j *jobFiles) {
	p.mu.Lock()
	defer p.mu.Unlock()
	j.users--
}

// forget has the job's files brought again for the tasks to come: some of their chunks are no longer here.
func (p *preparer) forget(id protocol.JobID) {
	p.mu.Lock()
	j := p.jobs[id]
	p.mu.Unlock()
	if j == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.in, j.loaded = nil, false
	clear(j.programs)
}

// evict drops the job used longest ago while there are too many. mu is held.
func (p *preparer) evict() {
	for len(p.jobs) >= jobsPrepared {
		var oldest protocol.JobID
		for id, j := range p.jobs {
			if j.users == 0 && (oldest == "" || j.used < p.jobs[oldest].used) {
				oldest = id
			}
		}
		if oldest == "" {
			return // all in use, by as many tasks
		}
		for _, release := range p.jobs[oldest].releases {
			release()
		}
		delete(p.jobs, oldest)
	}
}

// prepare brings all that a task needs, and shows it as host files.
func (p *preparer) prepare(ctx context.Context, r *market.Run) (*prepared, error) {
	j := p.open(r.Job.ID)
	out := &prepared{cleanup: []func(){func() { p.leave(j) }}}
	if err := p.fill(ctx, r, j, out); err != nil {
		out.release()
		return nil, err
	}
	return out, nil
}

func (p *preparer) fill(ctx context.Context, r *market.Run, j *jobFiles, out *prepared) error {
	entry, err := p.common(ctx, r, j, &out.task)
	if err != nil {
		return err
	}
	m := &r.Job.Manifest
	plan, err := m.Task(r.Stage, r.Index, entry)
	if err != nil {
		return err
	}
	stage := &m.Stages[r.Stage]
	t := &out.task
	t.Args, t.Env, t.Seed = plan.Args, plan.Env, plan.Seed
	t.Deterministic = !stage.Nondeterministic
	t.Limits = sandbox.Limits{
		Memory: int64(stage.Limits.Memory), Disk: int64(stage.Limits.Disk), Output: int64(stage.Limits.Output),
		Log: int64(stage.Limits.Log), Timeout: stage.Limits.Timeout,
	}
	if plan.InputName == "" {
		return nil
	}
	if stage.Source.Kind == job.SourceOutputs {
		var joined string
		joined, err = p.join(ctx, r, j, plan.Reads, out)
		t.Stdin = []string{joined}
	} else {
		t.Stdin, err = p.piece(ctx, r, entry.Root, out)
	}
	if err != nil {
		return err
	}
	t.In = append(t.In[:len(t.In):len(t.In)], sandbox.File{Name: plan.InputName, Paths: t.Stdin})
	return nil
}

// prefetch brings the input of a task, and no more.
func (p *preparer) prefetch(ctx context.Context, r *market.Run) error {
	j := p.open(r.Job.ID)
	defer p.leave(j)
	var t sandbox.Task
	entry, err := p.common(ctx, r, j, &t)
	if err != nil || !entry.Root.Defined() || r.Job.Manifest.Stages[r.Stage].Source.Kind != job.SourceIndex {
		return err
	}
	return p.content.fetch(ctx, []cid.Cid{entry.Root}, source{job: r.Job.ID, from: r.From})
}

// common fills in what the job's tasks have in common, and gives the task's entry.
func (p *preparer) common(ctx context.Context, r *market.Run, j *jobFiles, t *sandbox.Task) (job.Entry, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ctx, j.from = ctx, source{job: r.Job.ID, from: r.From}
	if err := p.load(ctx, r, j); err != nil {
		return job.Entry{}, err
	}
	t.Program, t.In = j.programs[r.Stage], j.in
	src := &r.Job.Manifest.Stages[r.Stage].Source
	switch src.Kind {
	case job.SourceIndex:
		index := j.indexes[r.Stage]
		if index == nil {
			var err error
			if index, err = job.ReadIndex(src.Index, p.getter(j)); err != nil {
				return job.Entry{}, err
			}
			j.indexes[r.Stage] = index
		}
		return index.Entry(r.Index)
	case job.SourceOutputs:
		if len(r.Sources) != 1 {
			return job.Entry{}, fmt.Errorf("node: task %d of stage %d: %w: no seal of the stage that it reads", r.Index, r.Stage, errNoInput)
		}
		return job.Entry{Root: r.Sources[0]}, nil
	}
	return job.Entry{}, nil
}

// load brings the program of the stage and, once, the job's files. j.mu is held.
func (p *preparer) load(ctx context.Context, r *market.Run, j *jobFiles) error {
	m := &r.Job.Manifest
	if !j.loaded {
		var in []sandbox.File
		for _, f := range m.Files {
			path, err := p.stay(ctx, f.Root, j)
			if err != nil {
				return err
			}
			in = append(in, sandbox.File{Name: f.Name, Paths: []string{path}})
		}
		j.in, j.loaded = in, true
	}
	if _, ok := j.programs[r.Stage]; !ok {
		program := m.Stages[r.Stage].Program
		path, err := p.stay(ctx, program.Root, j)
		if err != nil {
			return err
		}
		j.programs[r.Stage] = sandbox.ProgramRef{ID: program.Root.String(), Path: path}
	}
	return nil
}

// stay brings a file that stays as long as the job is at hand. j.mu is held.
func (p *preparer) stay(ctx context.Context, root cid.Cid, j *jobFiles) (string, error) {
	hold := p.pins.hold()
	err := p.content.fetch(ctx, []cid.Cid{root}, j.from)
	if err != nil {
		hold.Release()
		return "", err
	}
	path, release, err := p.files.acquire(ctx, root)
	if err != nil {
		hold.Release()
		return "", err
	}
	p.pins.add(setOf(j.from.job), hold, root)
	j.releases = append(j.releases, release)
	return path, nil
}

// getter reads chunks for the readers of a job, which are used with j.mu held, from whoever the task at hand names.
func (p *preparer) getter(j *jobFiles) job.Getter {
	return func(c cid.Cid) ([]byte, error) { return p.content.chunk(j.ctx, c, j.from) }
}

// bring fetches a file for one task, and holds its chunks as long as the task has its files.
func (p *preparer) bring(ctx context.Context, r *market.Run, root cid.Cid, out *prepared) error {
	hold := p.content.store.Hold()
	out.cleanup = append(out.cleanup, hold.Release)
	return p.content.fetch(ctx, []cid.Cid{root}, source{job: r.Job.ID, from: r.From})
}

// piece brings a task's piece of the input as the files of its chunks: a copy would cost as much as reading it.
func (p *preparer) piece(ctx context.Context, r *market.Run, root cid.Cid, out *prepared) ([]string, error) {
	if err := p.bring(ctx, r, root, out); err != nil {
		return nil, err
	}
	if paths, ok := p.content.store.Paths(ctx, root, chunksShown); ok {
		return paths, nil
	}
	path, err := p.copy(ctx, root, out)
	return []string{path}, err
}

// state brings a task's checkpoint as one file.
func (p *preparer) state(ctx context.Context, r *market.Run, root cid.Cid, out *prepared) (string, error) {
	if err := p.bring(ctx, r, root, out); err != nil {
		return "", err
	}
	if path, ok := p.content.store.Path(root); ok && root.Type() == cid.Raw {
		return path, nil
	}
	return p.copy(ctx, root, out)
}

// copy makes one host file of a file that is here.
func (p *preparer) copy(ctx context.Context, root cid.Cid, out *prepared) (string, error) {
	path := p.files.temp("piece")
	if _, err := p.content.store.Materialise(ctx, root, path); err != nil {
		return "", err
	}
	out.cleanup = append(out.cleanup, func() { _ = os.Remove(path) })
	return path, nil
}

// join writes the outputs of the tasks that a reducer reads into one file, in task order.
func (p *preparer) join(ctx context.Context, r *market.Run, j *jobFiles, reads protocol.Range, out *prepared) (_ string, err error) {
	path := p.files.temp("joined")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", fmt.Errorf("node: join outputs: %w", err)
	}
	out.cleanup = append(out.cleanup, func() { _ = os.Remove(path) })
	defer func() {
		if e := f.Close(); err == nil && e != nil {
			err = fmt.Errorf("node: join outputs: %w", e)
		}
	}()
	hold := p.content.store.Hold()
	defer hold.Release()
	w := bufio.NewWriterSize(f, joinBuffer)
	for lo := reads.Lo; lo < reads.Hi; lo += joinAhead {
		results, err := p.results(ctx, r, j, protocol.Range{Lo: lo, Hi: min(lo+joinAhead, reads.Hi)})
		if err != nil {
			return "", err
		}
		if err := p.append(ctx, w, results, source{job: r.Job.ID, from: r.From}); err != nil {
			return "", err
		}
	}
	if err := w.Flush(); err != nil {
		return "", fmt.Errorf("node: join outputs: %w", err)
	}
	return path, nil
}

// results reads results of the stage that a stage reads.
func (p *preparer) results(ctx context.Context, r *market.Run, j *jobFiles, tasks protocol.Range) (list []protocol.Result, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ctx, j.from = ctx, source{job: r.Job.ID, from: r.From}
	sealed := j.results[r.Stage]
	if sealed.Results == nil || sealed.root != r.Sources[0] {
		m := &r.Job.Manifest
		n := m.Stages[m.Stages[r.Stage].Source.Stage].Tasks
		sealed = sealedResults{r.Sources[0], job.ReadResults(r.Sources[0], n, p.getter(j))}
		j.results[r.Stage] = sealed
	}
	for result, err := range sealed.All(tasks) {
		if err != nil {
			return nil, err
		}
		list = append(list, result)
	}
	return list, nil
}

// append writes the standard outputs of results.
func (p *preparer) append(ctx context.Context, w *bufio.Writer, results []protocol.Result, from source) error {
	var roots []cid.Cid
	for i := range results {
		if root := results[i].Stdout.Root; root.Defined() {
			roots = append(roots, root)
		}
	}
	if err := p.content.fetch(ctx, roots, from); err != nil {
		return err
	}
	for i := range results {
		o := &results[i].Stdout
		if !o.Root.Defined() {
			if _, err := w.Write(o.Inline); err != nil {
				return fmt.Errorf("node: join outputs: %w", err)
			}
			continue
		}
		file, err := p.content.store.FileReader(ctx, o.Root)
		if err != nil {
			return err
		}
		if n, err := file.WriteTo(w); err != nil {
			return fmt.Errorf("node: join outputs: %w", err)
		} else if uint64(n) != o.Size {
			return fmt.Errorf("node: join outputs: %s has %d bytes, its seal says %d", o.Root, n, o.Size)
		}
	}
	return nil
}
