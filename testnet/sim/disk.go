package sim

import (
	"hash/maphash"
	"math/rand/v2"

	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// disk is a peer's journal and store. What was written since the last sync may be gone
// after a crash: of the journal a tail, of the store any block.
type disk struct {
	journal []market.Entry
	synced  int                                // entries of the journal that are durable
	blocks  map[string][]byte                  // by CID
	fresh   map[string]bool                    // blocks that are not durable
	wanted  bool                               // a sync of the store is owed before anything is sent
	after   int                                // where it is, the entries of the journal from here on wait for it
	pins    map[protocol.JobID]map[string]bool // what is kept for a job: the rest goes when it likes

	records map[uint64]bool                            // hashes of the durable records
	jobs    map[protocol.JobID]bool                    // manifests that are durable
	kept    map[protocol.JobID]bool                    // jobs of which a Keep of this peer is durable
	keep    func(record uint64) (protocol.JobID, bool) // tells whether a record is a Keep of this peer
}

var hashSeed = maphash.MakeSeed()

func (d *disk) init() {
	d.blocks, d.fresh, d.pins = map[string][]byte{}, map[string]bool{}, map[protocol.JobID]map[string]bool{}
	d.records, d.jobs, d.kept = map[uint64]bool{}, map[protocol.JobID]bool{}, map[protocol.JobID]bool{}
}

// put stores a block and keeps it for jobs.
func (d *disk) put(key string, data []byte, jobs ...protocol.JobID) {
	if d.blocks[key] == nil {
		d.blocks[key], d.fresh[key] = data, true
	}
	for _, id := range jobs {
		if d.pins[id] == nil {
			d.pins[id] = map[string]bool{}
		}
		d.pins[id][key] = true
	}
}

// drop lets go of what is kept for a job alone: one block or, where none is named, all.
func (d *disk) drop(id protocol.JobID, root cid.Cid) {
	for k := range d.pins[id] {
		if !root.Defined() || k == root.KeyString() {
			d.release(id, k)
		}
	}
}

// release lets go of a block that is kept for a job.
func (d *disk) release(id protocol.JobID, key string) {
	delete(d.pins[id], key)
	if !d.pinned(key) {
		delete(d.blocks, key)
		delete(d.fresh, key)
	}
}

func (d *disk) pinned(key string) bool {
	for _, set := range d.pins {
		if set[key] {
			return true
		}
	}
	return false
}

// durable tells whether a block outlives a power cut.
func (d *disk) durable(key string) bool { return d.blocks[key] != nil && !d.fresh[key] }

// want asks for the store to be durable before what is journaled from now on.
func (d *disk) want() {
	if !d.wanted {
		d.wanted, d.after = true, len(d.journal)
	}
}

// sync makes the journal durable, and the store where it is wanted.
func (d *disk) sync() {
	for _, e := range d.journal[d.synced:] {
		switch e.Kind {
		case market.EntryJob:
			d.jobs[e.Job] = true
		case market.EntryRecord:
			k := maphash.Bytes(hashSeed, e.Data)
			d.records[k] = true
			if id, ok := d.keep(k); ok {
				d.kept[id] = true
			}
		case market.EntryFinal:
			delete(d.kept, e.Job)
		}
	}
	d.synced = len(d.journal)
	if d.wanted {
		clear(d.fresh)
		d.wanted = false
	}
}

// crash loses part of what was not synced and gives the number of entries and blocks that went. An
// entry that was to wait for the store has not been written.
func (d *disk) crash(rng *rand.Rand) (lost, blocks int) {
	if tail := len(d.journal) - d.synced; tail > 0 {
		lost = rng.IntN(tail + 1)
	}
	if d.wanted {
		lost = max(lost, len(d.journal)-max(d.after, d.synced))
	}
	d.journal = d.journal[:len(d.journal)-lost]
	d.wanted = false
	for _, k := range sortedKeys(d.fresh) {
		if rng.IntN(2) == 0 {
			delete(d.blocks, k)
			blocks++
		}
	}
	clear(d.fresh)
	d.sync()
	return lost, blocks
}

// compact writes the journal anew.
func (d *disk) compact(entries []market.Entry) {
	d.sync()
	d.journal = entries
	d.synced = 0
	clear(d.records)
	d.sync()
}

// rollback brings back an older journal, as of a backup: k durable entries are gone.
func (d *disk) rollback(k int) {
	d.journal = d.journal[:max(0, len(d.journal)-k)]
	d.synced = 0
	clear(d.records)
	clear(d.jobs)
	clear(d.kept)
	d.sync()
}
