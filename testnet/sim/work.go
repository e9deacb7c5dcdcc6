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
		p.work(r, p.progress(r.State))
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
		p.disk.put(c.KeyString(), data)
		p.step(market.Checkpointed{ID: r.ID, State: c})
		p.work(r, next)
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

// progress is what a checkpoint holds; a state that nobody has is the start.
func (p *Peer) progress(c cid.Cid) time.Duration {
	if !c.Defined() {
		return 0
	}
	var all []protocol.PeerID
	for _, q := range p.w.Peers {
		all = append(all, q.ID())
	}
	data, err := p.obtain(c, all)
	if err != nil {
		return 0
	}
	return time.Duration(binary.BigEndian.Uint64(data))
}

func (p *Peer) finish(r market.Run) {
	if !p.runs[r.ID] {
		return
	}
	delete(p.runs, r.ID)
	delete(p.began, r.ID)
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
	p.step(end)
	p.fill()
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
	if f.Kind != market.FetchManifest && f.Kind != market.FetchJob && f.Root.Defined() && p.disk.blocks[f.Root.KeyString()] != nil {
		d = 0
	}
	p.later(d, func() {
		got := market.Fetched{ID: f.ID}
		switch f.Kind {
		case market.FetchManifest, market.FetchJob:
			if got.Job = w.jobs[f.Job]; !slices.ContainsFunc(f.From, p.reaches) {
				got.Err = errNowhere
			}
		default:
			got.Data, got.Err = p.obtain(f.Root, f.From)
			for _, root := range f.Roots {
				if got.Err == nil {
					_, got.Err = p.obtain(root, f.From)
				}
			}
		}
		if got.Err != nil {
			w.Counts["fault: fetch failed"]++
		}
		p.step(got)
	})
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

// Results reads the results of a stage, from the peer's own blocks where they are there.
func (p *Peer) Results(id protocol.JobID, stage protocol.StageIndex) ([]protocol.Result, error) {
	v, ok := p.machine.View(id)
	if !ok || !v.Stages[stage].Top.Defined() {
		return nil, fmt.Errorf("sim: stage %d has no seal at peer %d", stage, p.Index)
	}
	get := func(c cid.Cid) ([]byte, error) {
		for _, q := range append([]*Peer{p}, p.w.Peers...) {
			if data := q.disk.blocks[c.KeyString()]; data != nil {
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
