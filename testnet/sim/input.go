package sim

import (
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// The input of a job that reads an index is a block for each chunk group. Who runs a task
// reads it where it is and does not keep it: so what is lost shows.

// withInput makes a job's tasks read an input of so many chunk groups.
func withInput(tasks, groups uint64, replicas int) func(*job.Spec) {
	return func(s *job.Spec) {
		s.Array, s.Replicas = 0, replicas
		s.Input = job.Input{Root: cid.NewCidV1(cid.DagCBOR, Program("index").Root.Hash()), Count: tasks, Bytes: groups * job.GroupBytes}
	}
}

// input is the chunk of a group of a job's input; cid.Undef: it has none.
func input(j *job.Signed, group int) cid.Cid {
	if j.Manifest.Stages[0].Source.Kind != job.SourceIndex || group >= j.Manifest.Groups {
		return cid.Undef
	}
	return Program(fmt.Sprintf("%s input %d", j.ID, group)).Root
}

// partOf is what a keeper of a group gets: its input and, with group 0, the programs.
func partOf(j *job.Signed, group int) (roots []cid.Cid) {
	if group == 0 {
		roots = programs(j)
	}
	if c := input(j, group); c.Defined() {
		roots = append(roots, c)
	}
	return roots
}

// eachGroup calls f for the groups of a set.
func eachGroup(groups protocol.GroupSet, f func(g int)) {
	for ; groups != 0; groups &= groups - 1 {
		f(bits.TrailingZeros64(uint64(groups)))
	}
}

// served tells whether somebody of from, or this peer, has a block.
func (p *Peer) served(c cid.Cid, from []protocol.PeerID) bool {
	k := c.KeyString()
	if !c.Defined() || p.disk.blocks[k] != nil {
		return true
	}
	for _, id := range from {
		if p.reaches(id) && p.w.byID[id].disk.blocks[k] != nil {
			return true
		}
	}
	return false
}

var errNoRoom = errors.New("sim: no room")

// groups copies what the keeper of chunk groups gets, as far as it has room.
func (p *Peer) groups(f market.Fetch) (got protocol.GroupSet, err error) {
	eachGroup(f.Groups, func(g int) {
		room, limited := p.w.cfg.Room[p.Index]
		if limited && g > 0 && p.keeps(f.Job) >= room {
			err = errNoRoom
			return
		}
		if e := p.obtainAll(f.Job, partOf(f.Signed, g), f.From); e != nil {
			err = e
			return
		}
		got |= 1 << g
	})
	return got, err
}

// keeps is the number of groups of a job's input that a peer has pinned.
func (p *Peer) keeps(id protocol.JobID) (n int) {
	j := p.w.jobs[id]
	for g := range j.Manifest.Groups {
		if p.disk.pins[id][input(j, g).KeyString()] {
			n++
		}
	}
	return n
}

// drop lets go of what is kept for a job: of groups it takes what the keeper of each got, and
// with group 0 the results.
func (p *Peer) drop(d market.Drop) {
	p.w.inv.dropped(p, d)
	if d.Groups == 0 {
		p.disk.drop(d.Job, d.Root)
		return
	}
	j := p.w.jobs[d.Job]
	for k := range p.disk.pins[d.Job] {
		group := 0
		for g := 1; g < j.Manifest.Groups; g++ {
			if k == input(j, g).KeyString() {
				group = g
			}
		}
		if d.Groups.Has(group) {
			p.disk.release(d.Job, k)
		}
	}
}

// dropped wants a peer that lets go of a part of a job that stands to leave as many copies
// behind as the job asks for.
func (v *invariants) dropped(p *Peer, d market.Drop) {
	if !d.Root.Defined() && d.Groups == 0 {
		v.freed[leaver{p.ID(), d.Job}] = maps.Clone(p.disk.pins[d.Job])
	}
	state, _ := p.machine.State(d.Job)
	if d.Root.Defined() || v.rotten || v.retired[d.Job] || state != protocol.JobRunning && state != protocol.JobDone {
		return
	}
	j := v.w.jobs[d.Job]
	groups := d.Groups
	if groups == 0 {
		groups = protocol.AllGroups(j.Manifest.Groups)
	}
	who := leaver{p.ID(), d.Job}
	eachGroup(groups, func(g int) {
		c := partOf(j, g)[0].KeyString()
		if v.back[who].Has(g) && p.disk.pins[d.Job][c] && !v.held[who].Has(g) {
			v.w.violate("I1", "peer %d lets go of group %d, which nobody has said to hold since its Keep was taken back", p.Index, g)
		}
		n := 0
		for _, q := range v.w.Peers {
			if q != p && q.disk.durable(c) && q.disk.pins[d.Job][c] {
				n++
			}
		}
		if p.disk.pins[d.Job][c] && n < j.Manifest.Replicas {
			v.w.violate("I1", "peer %d lets go of group %d with %d other copies", p.Index, g, n)
		}
	})
}

// groupTime is how long it may take until an input is with as many peers as it is to be: who
// keeps it calls the keepers of an ended job every 8 minutes, should news of another's Keep
// have been lost.
const groupTime = 10 * time.Minute

// VerifyGroups wants each chunk group of a job's input to be with as many peers as the job asks
// for, beside the submitter's, and with no more: I1.
func (w *World) VerifyGroups(id protocol.JobID) {
	j := w.jobs[id]
	if j.Manifest.Groups == 1 || len(w.cfg.Room) > 0 {
		return
	}
	up := 0
	for _, p := range w.Peers {
		if p.up && p.ID() != j.Manifest.Submitter {
			up++
		}
	}
	want := min(j.Manifest.Replicas, up)
	even := func() bool {
		for g := 1; g < j.Manifest.Groups; g++ {
			if w.groupCopies(id, g) != want {
				return false
			}
		}
		return true
	}
	if !w.Run(w.now+groupTime, even) {
		for g := 1; g < j.Manifest.Groups; g++ {
			if n := w.groupCopies(id, g); n != want {
				w.violate("I1", "group %d of a done job is with %d peers, want %d", g, n, want)
			}
		}
	}
}

// groupCopies is the number of peers that are up, have signed for a group and have it.
func (w *World) groupCopies(id protocol.JobID, g int) (n int) {
	j := w.jobs[id]
	for _, p := range w.Peers {
		if v, ok := p.View(id); p.up && ok && p.ID() != j.Manifest.Submitter && v.Keeps.Has(g) && p.disk.durable(input(j, g).KeyString()) {
			n++
		}
	}
	return n
}
