package market

import "github.com/compute-mesh/mesh/protocol"

// holding is a piece of what a peer holds, to change hands.
type holding struct {
	rng   protocol.Range
	life  protocol.Life
	epoch protocol.Epoch // the highest in it
}

// holdings are the open ranges that p holds, in ascending order.
func (s *stage) holdings(p protocol.PeerID) []holding {
	var list []holding
	s.each(s.all(), func(r protocol.Range, c *cell) bool {
		if c.done != nil || s.holder(c) != p {
			return true
		}
		last := len(list) - 1
		if last >= 0 && list[last].rng.Hi == r.Lo && list[last].life == c.life {
			list[last].rng.Hi = r.Hi
			list[last].epoch = max(list[last].epoch, c.epoch())
		} else {
			list = append(list, holding{r, c.life, c.epoch()})
		}
		return true
	})
	return list
}
