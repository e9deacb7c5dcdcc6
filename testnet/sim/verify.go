package sim

import (
	"bytes"
	"time"

	"github.com/compute-mesh/mesh/protocol"
)

// copyTime is how long it may take until the results of a job that has ended are with as
// many peers as it asks for: what a keeper that was lost takes to be missed and replaced.
const copyTime = 5 * time.Minute

// Verify looks at what must hold of a job that has ended: I1, I3, I5 and I7.
func (w *World) Verify(id protocol.JobID, want protocol.JobState) {
	keepers := 0
	for _, p := range w.Peers {
		if !p.up {
			continue
		}
		for _, r := range p.machine.Running() {
			w.violate("I7", "peer %d runs task %d though all has ended", p.Index, r)
		}
		v, ok := p.View(id)
		if !ok && p.disk.kept[id] && !w.inv.retired[id] {
			w.violate("I1", "peer %d keeps a job and does not know it", p.Index)
		}
		if !ok || !v.Keeper {
			continue
		}
		keepers++
		if v.State != want {
			w.violate("I1", "%s: not %s", viewText(p, &v), stateName(want))
			continue
		}
		if v.State == protocol.JobDone {
			w.verifyResults(p, id)
		}
	}
	if keepers == 0 && !w.inv.retired[id] {
		w.violate("I1", "nobody keeps the job")
	}
	if !w.Run(w.now+settling, func() bool { return w.Settled(id) }) { // a Keep may be on its way
		w.violate("I5", "ledgers differ")
	}
}

// verifyResults wants every result of a done job as the program gives it, as whoever asks
// a keeper gets them.
func (w *World) verifyResults(p *Peer, id protocol.JobID) {
	v, _ := p.View(id)
	for i := range v.Stages {
		got, err := p.Results(id, protocol.StageIndex(i), append([]*Peer{p}, w.Peers...)...)
		if err != nil {
			w.violate("I3", "peer %d: %w", p.Index, err)
			return
		}
		if uint64(len(got)) != v.Stages[i].Tasks {
			w.violate("I3", "peer %d: stage %d: %d results of %d", p.Index, i, len(got), v.Stages[i].Tasks)
			return
		}
		for k := range got {
			want := Result(protocol.StageIndex(i), protocol.TaskIndex(k))
			if !bytes.Equal(got[k].Stdout.Inline, want.Stdout.Inline) {
				w.violate("I3", "peer %d: stage %d task %d: %q", p.Index, i, k, got[k].Stdout.Inline)
				return
			}
		}
	}
}

// VerifyCopies wants the results of a done job to be with as many peers as it asks for,
// its own blocks at each: I1.
func (w *World) VerifyCopies(id protocol.JobID) {
	up := 0
	for _, p := range w.Peers {
		if p.up {
			up++
		}
	}
	want := min(w.jobs[id].Manifest.Replicas, up)
	if !w.Run(w.now+copyTime, func() bool { return w.copies(id) >= want }) {
		w.violate("I1", "the results of a done job are with %d peers, want %d", w.copies(id), want)
	}
}

// copies is the number of peers that have all results of a done job.
func (w *World) copies(id protocol.JobID) (n int) {
	for _, p := range w.Peers {
		if v, ok := p.View(id); p.up && ok && v.Keeper && p.hasResults(id) {
			n++
		}
	}
	return n
}

func (p *Peer) hasResults(id protocol.JobID) bool {
	for i := range p.w.jobs[id].Manifest.Stages {
		if _, err := p.Results(id, protocol.StageIndex(i), p); err != nil {
			return false
		}
	}
	return true
}

// VerifyOnce wants no task to have run twice, but for copies: I4.
func (w *World) VerifyOnce() {
	for _, id := range w.order {
		for i := range w.jobs[id].Manifest.Stages {
			for t := range w.jobs[id].Manifest.Stages[i].Tasks {
				task := Task{id, protocol.StageIndex(i), protocol.TaskIndex(t)}
				if n := w.Started[task]; n > 1+w.Copied[task] {
					w.violate("I4", "stage %d task %d ran %d times without a fault, %d copies", task.Stage, task.Index, n, w.Copied[task])
				}
			}
		}
	}
}

// VerifyQuiet wants a mesh without work to become quiet: within quietTries times d there is a d in
// which no peer sends more than 1 KB/s: I7. The first may see the last keepers too many leave
// after a partition, each told of by one peer to all others.
func (w *World) VerifyQuiet(d time.Duration) {
	const quietTries = 2
	loud := w.loud(d)
	for try := 1; try < quietTries && len(loud) > 0; try++ {
		loud = w.loud(d)
	}
	for _, p := range loud {
		c := w.inv.bytes[p.ID()]
		w.violate("I7", "peer %d sent %d bytes in %v without work: %v", p.Index, c.Of("message"), d, map[string]int(c))
	}
}

// loud lets time pass and is the peers that sent more than 1 KB/s.
func (w *World) loud(d time.Duration) (list []*Peer) {
	clear(w.inv.bytes)
	w.inv.weigh = true
	w.Run(w.now+d, nil)
	w.inv.weigh = false
	for _, p := range w.Peers {
		if bytes := w.inv.bytes[p.ID()].Of("message"); time.Duration(bytes)*time.Second > 1000*d {
			list = append(list, p)
		}
	}
	return list
}
