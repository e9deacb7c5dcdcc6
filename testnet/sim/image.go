package sim

import (
	"github.com/compute-mesh/mesh/protocol"
)

// image is how far each task of a stage was, as a keeper's records told it: a number that
// may only grow. It is made here from the records alone, to check the machine's own join.
type image struct {
	key   protocol.InputKey
	tasks []uint64 // life, then done, then epoch
}

// sampleEvery is how many steps of a world lie between two looks at a ledger; of one with
// many tasks so many more, as a look costs what its tasks do.
func (v *invariants) sampleEvery() int {
	every := 509
	for _, id := range v.w.order {
		for i := range v.w.jobs[id].Manifest.Stages {
			every += int(v.w.jobs[id].Manifest.Stages[i].Tasks / 8)
		}
	}
	return every
}

// maxLedger bounds the bytes of a job's records with up to 10^6 tasks; in a mesh of more than
// 1,000 peers it is maxPart for each, for what they have under way.
const (
	maxLedger = 4 << 20
	maxPart   = 4 << 10
)

// stepped looks at a keeper's ledger now and then.
func (v *invariants) stepped(p *Peer) {
	if v.w.Steps < v.next || !p.up {
		return
	}
	for _, id := range v.w.order {
		if p.disk.kept[id] {
			v.ledger(p, id)
			v.next = v.w.Steps + v.sampleEvery()
		}
	}
}

func (v *invariants) ledger(p *Peer, id protocol.JobID) {
	v.view(p, id)
	records := p.machine.Records(id)
	size, most := 0, max(maxLedger, len(v.w.Peers)*maxPart)
	for i := range records {
		size += len(records[i].Raw)
	}
	v.largest = max(v.largest, size)
	if size > most {
		v.w.violate("I6", "peer %d: a ledger of %d bytes", p.Index, size)
	}
	k := part{p.Index, id}
	was := v.images[k]
	now := v.imagesOf(id, records)
	v.images[k] = now
	for i := range min(len(was), len(now)) {
		if was[i].key != now[i].key {
			continue
		}
		for t := range was[i].tasks {
			if old, got := was[i].tasks[t], now[i].tasks[t]; got < old {
				name := "I2"
				if old&doneBit != 0 {
					name = "I3"
				}
				v.w.violate(name, "peer %d: stage %d task %d went from %x back to %x", p.Index, i, t, old, got)
				return
			}
		}
	}
}

const doneBit = 1 << 50

// imagesOf reads the images of a job's stages from records.
func (v *invariants) imagesOf(id protocol.JobID, records []protocol.Record) []image {
	stages := v.w.jobs[id].Manifest.Stages
	list := make([]image, len(stages))
	list[0] = image{v.w.jobs[id].InputKey(0, nil), make([]uint64, stages[0].Tasks)}
	raise := func(ref protocol.StageRef, r protocol.Range, life protocol.Life, rank uint64) {
		m := &list[ref.Stage]
		if m.tasks == nil {
			m.key, m.tasks = ref.Key, make([]uint64, stages[ref.Stage].Tasks)
		}
		for t := r.Lo; t < r.Hi; t++ {
			m.tasks[t] = max(m.tasks[t], uint64(life)<<51|rank)
		}
	}
	for i := range records {
		switch b := records[i].Body.(type) {
		case *protocol.Segment:
			raise(b.StageRef, b.Range, b.Life, uint64(b.Epoch))
		case *protocol.Done:
			raise(b.StageRef, b.Range, b.Life, doneBit)
		case *protocol.Reopen:
			raise(b.StageRef, b.Range, b.Life, 0)
		case *protocol.Seal:
			if b.Level == 0 {
				raise(b.StageRef, protocol.Block(b.Number).Range(stages[b.Stage].Tasks), b.Life, doneBit)
			}
		}
	}
	return list
}
