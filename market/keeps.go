package market

import (
	"slices"

	"github.com/compute-mesh/mesh/protocol"
)

// put adds rec to a set of records that never conflict. A full set keeps those with the
// lowest hashes, whatever order they come in.
func put(set map[protocol.Hash]*protocol.Record, rec *protocol.Record, limit int) bool {
	if set[rec.Hash] != nil {
		return false
	}
	if len(set) >= limit {
		last := sorted(set)[len(set)-1]
		if !before(rec, last) {
			return false
		}
		delete(set, last.Hash)
	}
	set[rec.Hash] = rec
	return true
}

// putKeep adds a Keep. Over MaxKeeps those stay that come first by their rank among
// their signer's, then by hash: nobody can push out another's only one.
func putKeep(set map[protocol.Hash]*protocol.Record, rec *protocol.Record) bool {
	if set[rec.Hash] != nil {
		return false
	}
	set[rec.Hash] = rec
	if len(set) <= MaxKeeps {
		return true
	}
	seen := map[protocol.PeerID]int{}
	var last *protocol.Record
	worst := -1
	for _, r := range sorted(set) {
		if rank := seen[r.Signer]; rank >= worst {
			worst, last = rank, r
		}
		seen[r.Signer]++
	}
	delete(set, last.Hash)
	return last != rec
}

// left is what remains of a Keep after the Unkeeps that name it: the groups, and whether it
// is for the ledger, as one with group 0 or with none is.
func (l *ledger) left(keep *protocol.Record) (groups protocol.GroupSet, ledger bool) {
	whole := keep.Body.(*protocol.Keep).Groups
	groups, ledger = whole, whole == 0
	for _, u := range l.unkeeps {
		if b := u.Body.(*protocol.Unkeep); b.Keep == keep.Hash {
			groups &^= b.Groups
			ledger = false
		}
	}
	return groups, ledger || groups.Has(0)
}

// roster is who keeps a job: derived from its Keeps and Unkeeps, made anew when one is
// learned, and never changed.
type roster struct {
	peers  []protocol.PeerID                     // who keep the ledger, in order
	keep   map[protocol.PeerID]*protocol.Record  // theirs that counts
	groups map[protocol.PeerID]protocol.GroupSet // who keeps which chunk groups; nobody none
	stores []protocol.PeerID                     // the peers of groups, in order
	orders map[duty][]protocol.PeerID            // the peers in the rendezvous orders that were asked for
}

// duty is what a rendezvous order of keepers is for: something that they do for a peer, or to what has a number.
type duty struct {
	name   string
	peer   protocol.PeerID
	number uint64
}

// order sorts keepers in the rendezvous order of the duty.
func (d duty) order(id protocol.JobID, keepers []protocol.PeerID) []protocol.PeerID {
	name := d.name
	if d.peer != "" {
		name += "/" + string(d.peer)
	}
	return ranked(name, id, d.number, keepers)
}

// maxOrders bounds the orders that are remembered: two for each member; of duties with a number there are fewer.
const maxOrders = 2 * MaxMembers

// roster is made when it is asked for after a Keep or an Unkeep. Of several Keeps of a
// peer for the ledger that with the most groups counts, then the lowest hash; the groups
// are those of all.
func (l *ledger) roster() *roster {
	if l.kept != nil {
		return l.kept
	}
	r := &roster{
		keep: map[protocol.PeerID]*protocol.Record{}, groups: map[protocol.PeerID]protocol.GroupSet{},
		orders: map[duty][]protocol.PeerID{},
	}
	for _, k := range sorted(l.keeps) {
		groups, ledger := l.left(k)
		if groups != 0 {
			r.groups[k.Signer] |= groups
		}
		old := r.keep[k.Signer]
		if ledger && (old == nil || k.Body.(*protocol.Keep).Groups.Len() > old.Body.(*protocol.Keep).Groups.Len()) {
			r.keep[k.Signer] = k
		}
	}
	r.peers, r.stores = sortedKeys(r.keep), sortedKeys(r.groups)
	l.kept = r
	return r
}

// keepers are the peers with a Keep of the ledger that they have not taken back, in order.
func (l *ledger) keepers() []protocol.PeerID { return l.roster().peers }

// keepOf is the Keep of p that counts; nil: p does not keep the ledger.
func (l *ledger) keepOf(p protocol.PeerID) *protocol.Record { return l.roster().keep[p] }

// inOrder is the keepers in the rendezvous order of a duty.
func (l *ledger) inOrder(d duty) []protocol.PeerID {
	r := l.roster()
	list, known := r.orders[d]
	if !known {
		if len(r.orders) >= maxOrders {
			clear(r.orders)
		}
		list = d.order(l.job.ID, r.peers)
		r.orders[d] = list
	}
	return list
}

func sorted(set map[protocol.Hash]*protocol.Record) []*protocol.Record {
	list := make([]*protocol.Record, 0, len(set))
	for _, r := range set {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b *protocol.Record) int { return slices.Compare(a.Hash[:], b.Hash[:]) })
	return list
}
