package node

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/compute-mesh/mesh/chunkstore"
	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// jobSets is the prefix of the pin set of a job: what is kept for it.
const jobSets = "job/"

func setOf(id protocol.JobID) string { return jobSets + id.String() }

// groupSet is the pin set of a chunk group of a job. That of group 0 is the job's own: with it goes all that is kept but
// for the other groups' input. So a group can be let go of, though others may have the same chunks.
func groupSet(id protocol.JobID, group int) string {
	if group == 0 {
		return setOf(id)
	}
	return setOf(id) + "/" + strconv.Itoa(group)
}

// jobOfSet is the job of a set.
func jobOfSet(set string) (protocol.JobID, bool) {
	text, ok := strings.CutPrefix(set, jobSets)
	if !ok {
		return "", false
	}
	text, _, _ = strings.Cut(text, "/")
	id, err := protocol.ParseJobID(text)
	return id, err == nil
}

// pinBatch is the number of roots that wait at most for a flush: each costs 100 bytes.
const pinBatch = 4096

// pins gathers what is to be pinned, so that one transaction serves many: each is two flushes. What was added is held in
// the store until it is pinned; housekeeping sees to it every two seconds.
type pins struct {
	store pinStore

	mu      sync.Mutex
	waiting map[string][]cid.Cid // by set
	holds   []*chunkstore.Hold   // of what waits
	count   int

	flushing sync.Mutex
}

// pinStore is what pins needs of the chunk store.
type pinStore interface {
	PinAll(sets map[string][]cid.Cid) error
	Unpin(set string) error
	UnpinRoots(set string, roots ...cid.Cid) error
	PinSets(each func(set string) bool) error
	Hold() *chunkstore.Hold
}

func newPins(store pinStore) *pins {
	return &pins{store: store, waiting: make(map[string][]cid.Cid)}
}

// hold protects what is stored from now on until it is given to add or release.
func (p *pins) hold() *chunkstore.Hold { return p.store.Hold() }

// add keeps roots in a set. The hold, if any, under which they were stored, goes with them: it ends with the flush.
func (p *pins) add(set string, hold *chunkstore.Hold, roots ...cid.Cid) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range roots {
		if c.Defined() {
			p.waiting[set] = append(p.waiting[set], c)
			p.count++
		}
	}
	if hold != nil {
		p.holds = append(p.holds, hold)
	}
}

// release ends a hold with the next flush.
func (p *pins) release(hold *chunkstore.Hold) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holds = append(p.holds, hold)
}

// drop ends the keeping of a file or of chunk groups for a job or, where none is named, of all of it.
func (p *pins) drop(d market.Drop) error {
	if err := p.flush(); err != nil { // what was added before goes, too
		return err
	}
	if d.Root.Defined() {
		return p.store.UnpinRoots(setOf(d.Job), d.Root)
	}
	var sets []string
	own := setOf(d.Job)
	err := p.store.PinSets(func(set string) bool {
		if set == own || strings.HasPrefix(set, own+"/") {
			sets = append(sets, set)
		}
		return true
	})
	for _, set := range sets {
		if d.Groups == 0 || set == own && d.Groups.Has(0) || set != own && d.Groups.Has(groupOf(set)) {
			err = errors.Join(err, p.store.Unpin(set))
		}
	}
	return err
}

// groupOf is the chunk group of a set that has more than the job in its name; -1: none.
func groupOf(set string) int {
	g, err := strconv.Atoi(set[strings.LastIndexByte(set, '/')+1:])
	if err != nil {
		return -1
	}
	return g
}

// full tells whether a flush is due without a commit that asks for one.
func (p *pins) full() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count >= pinBatch || len(p.holds) >= pinBatch
}

// flush returns when all that was added before is pinned, durably. On an error what was not pinned waits on.
func (p *pins) flush() error {
	p.flushing.Lock()
	defer p.flushing.Unlock()
	p.mu.Lock()
	waiting, holds := p.waiting, p.holds
	p.waiting, p.holds, p.count = make(map[string][]cid.Cid), nil, 0
	p.mu.Unlock()
	if len(waiting) > 0 {
		if err := p.store.PinAll(waiting); err != nil {
			for set, roots := range waiting {
				p.add(set, nil, roots...)
			}
			p.mu.Lock()
			p.holds = append(p.holds, holds...)
			p.mu.Unlock()
			return fmt.Errorf("node: pin: %w", err)
		}
	}
	for _, h := range holds {
		h.Release()
	}
	return nil
}
