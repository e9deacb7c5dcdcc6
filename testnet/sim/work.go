package sim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// probeWait is how long a driver waits for who may be gone.
const probeWait = time.Second

// fill starts queued runs while slots are free.
func (p *Peer) fill() {
	for len(p.queue) > 0 && len(p.runs)-len(p.queue) < p.slots {
		r := p.queue[0]
		p.queue = p.queue[1:]
		p.began[r.ID] = market.DiedTask{Job: r.Job.ID, Stage: r.Stage, Index: r.Index, Alone: r.Alone}
		if r.Alone && len(p.runs) > 1 {
			p.w.violate("alone", "peer %d: task %d is to run alone, beside %d others", p.Index, r.Index, len(p.runs)-1)
		}
		p.w.Started[Task{r.Job.ID, r.Stage, r.Index}]++
		p.w.note("run", uint64(p.Index), uint64(r.Index))
		if _, err := p.obtain(r.Job.Manifest.Stages[r.Stage].Program.Root, r.From); err != nil {
			p.w.Counts["fault: input missing"]++
			p.later(2*p.w.delay(p.Index, p.Index), func() {
				p.end(r, market.Ended{ID: r.ID, Outcome: market.OutcomeReleased, Detail: "input missing"})
			})
			continue
		}
		if c := input(r.Job, r.Job.Manifest.GroupOf(r.Stage, r.Index)); r.Stage == 0 && !p.served(c, r.From) {
			p.w.Counts["fault: input missing"]++
			p.later(2*p.w.delay(p.Index, p.Index), func() {
				p.end(r, market.Ended{ID: r.ID, Outcome: market.OutcomeReleased, Missing: c})
			})
			continue
		}
		p.work(r, p.progress(r))
	}
}

// work runs a task from a progress on, up to its next checkpoint or its end.
func (p *Peer) work(r market.Run, done time.Duration) {
	total := p.nominal(r)
	next := total
	if p.w.cfg.Check > 0 {
		next = min(total, done+p.w.cfg.Check)
	}
	p.later(p.slower(next-done), func() {
		if !p.runs[r.ID] {
			return
		}
		if p.w.cfg.Kills != nil && p.w.cfg.Kills(r.Stage, r.Index) {
			p.w.Counts["fault: task kills its host"]++
			p.Kill()
			return
		}
		p.w.Worked += next - done
		if next == total {
			p.finish(r)
			return
		}
		c, data := state(r, next)
		p.disk.put(c.KeyString(), data, r.Job.ID)
		life := p.life
		if p.step(market.Checkpointed{ID: r.ID, State: c}); p.life == life { // else it crashed, and the run with it
			p.work(r, next)
		}
	})
}

// nominal is how long a task takes at nominal speed.
func (p *Peer) nominal(r market.Run) time.Duration {
	if p.w.cfg.Task != nil {
		return p.w.cfg.Task(r.Stage, r.Index)
	}
	return 100 * time.Millisecond
}

func (p *Peer) slower(d time.Duration) time.Duration {
	if p.w.cfg.Speed != nil {
		return d * 1000 / time.Duration(p.w.cfg.Speed(p.Index))
	}
	return d
}

// state is a checkpoint's file: how far the task is.
func state(r market.Run, done time.Duration) (cid.Cid, []byte) {
	data := fmt.Appendf(nil, "%s %d %d %d", r.Job.ID, r.Stage, r.Index, done)
	return Program(string(data)).Root, binary.BigEndian.AppendUint64(nil, uint64(done))
}

// progress is what the newest checkpoint holds that somebody has, or the start.
func (p *Peer) progress(r market.Run) time.Duration {
	for _, state := range r.States {
		if data, err := p.obtain(state, r.From); err == nil {
			return time.Duration(binary.BigEndian.Uint64(data))
		}
	}
	return 0
}

func (p *Peer) finish(r market.Run) {
	w := p.w
	end := market.Ended{ID: r.ID, Outcome: market.OutcomeDone, Wall: p.slower(p.nominal(r)), Result: Result(r.Stage, r.Index)}
	if w.cfg.Fail != nil && w.cfg.Fail(p.Index, r.Stage, r.Index) {
		w.Counts["fault: attempt failed"]++
		end = market.Ended{ID: r.ID, Outcome: market.OutcomeFailed, Reason: protocol.ReasonExit, Exit: 3, Detail: "as told"}
	}
	if w.cfg.Unable != nil && w.cfg.Unable(p.Index, r.Stage, r.Index) {
		w.Counts["fault: task given back"]++
		end = market.Ended{ID: r.ID, Outcome: market.OutcomeReleased, Detail: "no room on the disk"}
	}
	p.end(r, end)
}

func (p *Peer) end(r market.Run, how market.Ended) {
	if p.runs[r.ID] {
		delete(p.runs, r.ID)
		delete(p.began, r.ID)
		p.step(how)
		p.fill()
	}
}

func (p *Peer) stop(id market.RunID) {
	if !p.runs[id] {
		return
	}
	delete(p.runs, id)
	delete(p.began, id)
	p.queue = slices.DeleteFunc(p.queue, func(r market.Run) bool { return r.ID == id })
	p.later(0, func() { p.step(market.Ended{ID: id, Outcome: market.OutcomeStopped}) })
}

// Result is what a task of the simulated program gives.
func Result(stage protocol.StageIndex, t protocol.TaskIndex) protocol.Result {
	text := fmt.Appendf(nil, "stage %d task %d\n", stage, t)
	return protocol.Result{Stdout: protocol.Output{Size: uint64(len(text)), Inline: text}}
}

var errNowhere = errors.New("sim: nobody has it")

func (p *Peer) fetch(f market.Fetch) {
	w := p.w
	w.note("fetch", uint64(p.Index), uint64(f.Kind))
	d := 2 * w.delay(p.Index, p.Index)
	if f.Root.Defined() && p.disk.blocks[f.Root.KeyString()] != nil {
		d = 0
	}
	p.later(d, func() {
		got := market.Fetched{ID: f.ID}
		switch f.Kind {
		case market.FetchManifest:
			got.Job, got.Err = p.manifest(f.Job, f.From)
		case market.FetchJob:
			got.Groups, got.Err = p.groups(f)
		case market.FetchSeal:
			got.Err = p.seal(f.Job, f.Root, f.From)
		case market.FetchOutputs:
			got.Err = p.obtainAll(f.Job, f.Roots, f.From)
		default:
			if got.Data, got.Err = p.obtain(f.Root, f.From); got.Err == nil && f.Kind == market.FetchPage {
				p.disk.put(f.Root.KeyString(), got.Data, f.Job)
			}
		}
		if got.Err != nil {
			w.Counts["fault: fetch failed"]++
		}
		p.step(got)
	})
}

// manifest gets a job's manifest from whoever knows the job.
func (p *Peer) manifest(id protocol.JobID, from []protocol.PeerID) (*job.Signed, error) {
	for _, q := range from {
		if p.reaches(q) {
			if _, ok := p.w.byID[q].View(id); ok {
				return p.w.jobs[id], nil
			}
		}
	}
	return nil, errNowhere
}

// programs are the files that a job needs to run.
func programs(j *job.Signed) (roots []cid.Cid) {
	for i := range j.Manifest.Stages {
		roots = append(roots, j.Manifest.Stages[i].Program.Root)
	}
	return roots
}

// obtainAll copies blocks and keeps them for a job.
func (p *Peer) obtainAll(id protocol.JobID, roots []cid.Cid, from []protocol.PeerID) error {
	for _, c := range roots {
		data, err := p.obtain(c, from)
		if err != nil {
			return err
		}
		p.disk.put(c.KeyString(), data, id)
	}
	return nil
}

// seal copies a leaf or node, and a leaf's parts and packs.
func (p *Peer) seal(id protocol.JobID, root cid.Cid, from []protocol.PeerID) error {
	if err := p.obtainAll(id, []cid.Cid{root}, from); err != nil {
		return err
	}
	if _, err := job.DecodeNode(p.disk.blocks[root.KeyString()]); err == nil {
		return nil
	}
	leaf, err := job.ReadLeaf(root, func(c cid.Cid) ([]byte, error) { return p.obtain(c, from) })
	if err != nil {
		return err
	}
	return p.obtainAll(id, leaf.Chunks(), from)
}

// obtain copies a block from whoever has it.
func (p *Peer) obtain(c cid.Cid, from []protocol.PeerID) ([]byte, error) {
	if !c.Defined() {
		return nil, nil
	}
	k := c.KeyString()
	if data := p.disk.blocks[k]; data != nil {
		return data, nil
	}
	for _, id := range from {
		if q := p.w.byID[id]; p.reaches(id) && q.disk.blocks[k] != nil {
			p.disk.put(k, q.disk.blocks[k])
			return p.disk.blocks[k], nil
		}
	}
	return nil, errNowhere
}

// reaches tells whether an exchange with a peer is possible now.
func (p *Peer) reaches(id protocol.PeerID) bool {
	q := p.w.byID[id]
	return q != nil && q.up && !p.w.net.cut(p.Index, q.Index) && !p.w.net.cut(q.Index, p.Index) &&
		max(p.w.net.clogs[p.Index], p.w.net.clogs[q.Index]) <= p.w.now
}

// Results reads the results of a stage from the blocks of some peers.
func (p *Peer) Results(id protocol.JobID, stage protocol.StageIndex, at ...*Peer) ([]protocol.Result, error) {
	v, ok := p.machine.View(id)
	if !ok || !v.Stages[stage].Top.Defined() {
		return nil, fmt.Errorf("sim: stage %d has no seal at peer %d", stage, p.Index)
	}
	get := func(c cid.Cid) ([]byte, error) {
		for _, q := range at {
			if data := q.disk.blocks[c.KeyString()]; data != nil && q.up {
				return data, nil
			}
		}
		return nil, errNowhere
	}
	n := v.Stages[stage].Tasks
	var list []protocol.Result
	for r, err := range job.ReadResults(v.Stages[stage].Top, n, get).All(protocol.Range{Hi: protocol.TaskIndex(n)}) {
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, nil
}
