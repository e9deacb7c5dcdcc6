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

// revoked tells whether a Keep was taken back for all its groups.
func (l *ledger) revoked(keep *protocol.Record) bool {
	left := keep.Body.(*protocol.Keep).Groups
	hit := false
	for _, u := range l.unkeeps {
		if b := u.Body.(*protocol.Unkeep); b.Keep == keep.Hash {
			left &^= b.Groups
			hit = true
		}
	}
	return hit && left == 0
}

// keepers are the peers with a Keep that they have not revoked as a whole, in order.
func (l *ledger) keepers() []protocol.PeerID {
	var peers []protocol.PeerID
	for _, k := range l.keeps {
		if !l.revoked(k) {
			peers = append(peers, k.Signer)
		}
	}
	slices.Sort(peers)
	return slices.Compact(peers)
}

// keepOf is the Keep of p that is not revoked as a whole: of several that with the most
// groups, then the lowest hash; nil: p is no keeper.
func (l *ledger) keepOf(p protocol.PeerID) *protocol.Record {
	var keep *protocol.Record
	for _, k := range l.keeps {
		if k.Signer != p || l.revoked(k) {
			continue
		}
		if keep == nil {
			keep = k
			continue
		}
		n, old := k.Body.(*protocol.Keep).Groups.Len(), keep.Body.(*protocol.Keep).Groups.Len()
		if n > old || n == old && before(k, keep) {
			keep = k
		}
	}
	return keep
}

func sorted(set map[protocol.Hash]*protocol.Record) []*protocol.Record {
	list := make([]*protocol.Record, 0, len(set))
	for _, r := range set {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b *protocol.Record) int { return slices.Compare(a.Hash[:], b.Hash[:]) })
	return list
}
