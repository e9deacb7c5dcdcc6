package node

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/node/api"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/dustin/go-humanize"
)

// room hands jobs over to other peers where the store has more than the quota that it was started with. Until it fits
// this peer may store, beyond what it had at the start, no more than its reserve: it has things to say and to sign.
type room struct {
	n     *Node
	limit int64 // of the store, but for the reserve

	mu    sync.Mutex
	tight bool                     // the store has more than its quota
	jobs  map[protocol.JobID]int64 // handed over since the start, and what they still take here
	rest  int64                    // what is too much and no job's that can be handed over
}

func newRoom(n *Node) *room {
	r := &room{n: n, limit: n.cfg.Quota - reserveOf(n.cfg.Quota), jobs: make(map[protocol.JobID]int64)}
	r.tight = n.store.Used() > n.cfg.Quota
	return r
}

// most is the quota of what the machine itself has to store.
func (r *room) most() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.tight {
		return r.n.cfg.Quota
	}
	return max(r.n.cfg.Quota, r.n.store.Used()+reserveOf(r.n.cfg.Quota))
}

// look is called from time to time: it ends the use of the reserve, and of the time of too little room.
func (r *room) look(ctx context.Context) error {
	r.mu.Lock()
	tight := r.tight
	r.mu.Unlock()
	var list []kept
	if tight {
		var err error
		if list, err = r.movable(ctx); err != nil { // before what is there is added up: what goes meanwhile counts as going
			return err
		}
		if _, err := r.n.store.Collect(ctx); err != nil {
			return err
		}
	}
	used := r.n.store.Used()
	if used <= r.limit {
		r.n.store.SetQuota(r.limit) // the reserve is one again
	}
	switch {
	case !tight:
		return nil
	case used <= r.limit:
		r.fits()
		return nil
	}
	r.handOver(list, used-r.limit)
	return nil
}

func (r *room) fits() {
	r.mu.Lock()
	r.tight, r.rest = false, 0
	clear(r.jobs)
	r.mu.Unlock()
	r.n.commit.quota.Store(r.n.cfg.Quota)
	r.n.log.Info("what this peer keeps fits into its quota again")
	r.n.driver.post(market.HandOver{})
}

// kept is a job that this peer has chunks of.
type kept struct {
	id    protocol.JobID
	bytes int64
	going bool // it is being handed over already
}

// handOver chooses among jobs some of so many bytes together, those that it chose before first, and has the market hand them over.
func (r *room) handOver(list []kept, excess int64) {
	chosen, rest := choose(list, excess)
	r.mu.Lock()
	for id := range r.jobs {
		r.jobs[id] = 0 // unless it is still here
	}
	var fresh []kept
	for _, k := range chosen {
		if _, known := r.jobs[k.id]; !known {
			fresh = append(fresh, k)
		}
		r.jobs[k.id] = k.bytes
	}
	r.rest = rest
	jobs := slices.Sorted(maps.Keys(r.jobs))
	r.mu.Unlock()
	for _, k := range fresh {
		r.n.log.Warn("a job is handed over to other peers: the quota has no room for it", "job", k.id, "bytes", k.bytes)
	}
	r.n.driver.post(market.HandOver{Jobs: jobs})
}

// movable lists the jobs with chunks here that others may keep.
func (r *room) movable(ctx context.Context) (list []kept, err error) {
	var sets []string
	if err := r.n.store.PinSets(func(set string) bool { sets = append(sets, set); return true }); err != nil {
		return nil, err
	}
	for _, set := range sets {
		id, ok := jobOfSet(set)
		if !ok {
			continue
		}
		bytes, err := r.n.store.PinnedBytes(ctx, set)
		if err != nil {
			return nil, err
		}
		if last := len(list) - 1; last >= 0 && list[last].id == id { // another chunk group of it
			list[last].bytes += bytes
			continue
		}
		k := kept{id: id, bytes: bytes}
		may := false
		if err := r.n.driver.ask(ctx, func(m machine) {
			if v, ok := m.View(id); ok {
				may = v.Job.Manifest.Replicas > 0 && (v.Keeper || v.Keeps != 0 || v.Going) && (v.State == protocol.JobRunning || v.State == protocol.JobDone)
				k.going = v.Going
			}
		}); err != nil {
			return nil, err
		}
		r.mu.Lock()
		_, known := r.jobs[id]
		r.mu.Unlock()
		if !may && !known { // what is known may be let go of, and pinned for a moment more
			continue
		}
		k.going = k.going || known
		list = append(list, k)
	}
	return list, nil
}

// choose picks what is going already and then, while that is not enough, the smallest job that is or, where there is none,
// the largest. rest is what is not covered.
func choose(list []kept, excess int64) (chosen []kept, rest int64) {
	slices.SortFunc(list, func(a, b kept) int { return cmp.Or(cmp.Compare(a.bytes, b.bytes), cmp.Compare(a.id, b.id)) })
	for _, k := range list {
		if k.going {
			chosen = append(chosen, k)
			excess -= k.bytes
		}
	}
	list = slices.DeleteFunc(list, func(k kept) bool { return k.going })
	for excess > 0 && len(list) > 0 {
		i := slices.IndexFunc(list, func(k kept) bool { return k.bytes >= excess })
		if i < 0 {
			i = len(list) - 1
		}
		chosen = append(chosen, list[i])
		excess -= list[i].bytes
		list = slices.Delete(list, i, i+1)
	}
	return chosen, max(0, excess)
}

// check says what does not fit; ok is false where all does.
func (r *room) check() (c api.Check, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.tight {
		return api.Check{}, false
	}
	jobs, bytes := uint64(0), int64(0)
	for _, b := range r.jobs {
		if b > 0 {
			jobs, bytes = jobs+1, bytes+b
		}
	}
	c = api.Check{
		Name: "quota", Level: api.LevelWarning,
		Detail: fmt.Sprintf("%s used, the quota is %s: %s with %s %s handed over to other peers, each as soon as one of them has it",
			humanize.IBytes(uint64(r.n.store.Used())), humanize.IBytes(uint64(r.n.cfg.Quota)), count(jobs, "job"), humanize.IBytes(uint64(bytes)), isAre(jobs)),
		Advice: "have peers with room connected; or start meshd with a larger --quota",
	}
	if r.rest > 0 {
		c.Detail += fmt.Sprintf("; %s more is of pins and of jobs that want no copies", humanize.IBytes(uint64(r.rest)))
		c.Advice += ", `mesh unpin` or `mesh rm` what is not wanted"
	}
	return c, true
}

func isAre(n uint64) string {
	if n == 1 {
		return "is"
	}
	return "are"
}
