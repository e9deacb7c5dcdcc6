package market

import (
	"slices"
	"time"

	"github.com/compute-mesh/mesh/protocol"
)

// offered is a range without holder, and the members that were told of it as they asked for
// work: who adopts it is told to them, or all would, one after another.
type offered struct {
	stage protocol.StageRef
	rng   protocol.Range
	to    []protocol.PeerID
	since time.Duration // when the first was told
}

// maxOffers bounds the ranges of which it is remembered who was told: beyond that the oldest
// is forgotten, and what is told twice is adopted twice, which the join settles.
const maxOffers = 256

// mayOffer tells whether p is told of a range: at most maxOffered are, until all of them have
// had time to adopt it.
func (w *watchState) mayOffer(p protocol.PeerID, o *protocol.Open, now, patience time.Duration) bool {
	w.offers = slices.DeleteFunc(w.offers, func(f offered) bool {
		return f.stage == o.Stage && f.rng == o.Range && now-f.since > patience
	})
	i := slices.IndexFunc(w.offers, func(f offered) bool { return f.stage == o.Stage && f.rng == o.Range })
	if i < 0 {
		if len(w.offers) >= maxOffers {
			w.offers = slices.Delete(w.offers, 0, 1)
		}
		w.offers = append(w.offers, offered{stage: o.Stage, rng: o.Range, since: now})
		i = len(w.offers) - 1
	}
	f := &w.offers[i]
	if slices.Contains(f.to, p) {
		return true
	}
	if len(f.to) >= maxOffered {
		return false
	}
	f.to = append(f.to, p)
	return true
}

// takeOffers is who was told of ranges that a segment takes, which are forgotten.
func (w *watchState) takeOffers(b *protocol.Segment) (list []protocol.PeerID) {
	w.offers = slices.DeleteFunc(w.offers, func(f offered) bool {
		taken := f.stage == b.StageRef && f.rng.Lo < b.Range.Hi && b.Range.Lo < f.rng.Hi
		if taken {
			list = append(list, f.to...)
		}
		return taken
	})
	return list
}
