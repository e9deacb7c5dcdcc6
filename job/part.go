package job

import (
	"fmt"

	"github.com/ipfs/go-cid"
)

// Getter gives the bytes of a chunk. They have been checked against the CID.
type Getter func(cid.Cid) ([]byte, error)

// A list of up to protocol.BlockSize items stands in its block where it is small, and
// in parts, blocks of their own, where it is not: names and lines may be long. Where a
// part ends follows from the items' weights alone, so that equal lists have equal
// blocks. A weight is never less than the bytes of the item's encoding.
const (
	// itemWeight is the weight of an item, and of each file in it, beside its texts: a
	// link (41), a 64-bit number (9), and the heads of texts and lists.
	itemWeight = 64
	// maxPartWeight bounds a part. Half a chunk, so that links to packs fit beside.
	maxPartWeight = MaxBlock / 2
)

type wirePart struct {
	_     struct{} `cbor:",toarray"`
	Count int64
	Link  wireLink
}

// parter cuts a list into parts as it comes. Its memory is one part.
type parter[T any] struct {
	encode func([]T) ([]byte, error)
	put    func(Block) error
	items  []T
	weight int
	parts  []wirePart
}

func (p *parter[T]) add(item T, weight int) error {
	if p.weight+weight > maxPartWeight {
		if err := p.flush(); err != nil {
			return err
		}
	}
	p.items = append(p.items, item)
	p.weight += weight
	return nil
}

func (p *parter[T]) flush() error {
	if len(p.items) == 0 {
		return nil
	}
	data, err := p.encode(p.items)
	if err != nil {
		return err
	}
	block, err := cborBlock(data)
	if err != nil {
		return err
	}
	p.parts = append(p.parts, wirePart{Count: int64(len(p.items)), Link: wireLink(block.CID)})
	p.items, p.weight = p.items[:0], 0
	return p.put(block)
}

// finish gives the items where they are in one part, else the parts, and starts again.
func (p *parter[T]) finish() ([]T, []wirePart, error) {
	if len(p.parts) > 0 {
		if err := p.flush(); err != nil {
			return nil, nil, err
		}
	}
	items, parts := p.items, p.parts
	p.items, p.weight, p.parts = nil, 0, nil
	return items, parts, nil
}

// Part is a piece of a list that is too large for its block.
type Part struct {
	Count int // items in it
	Link  cid.Cid
}

// checkParts gives a block's parts; together they have at most limit items.
func checkParts(parts []wirePart, limit int) ([]Part, error) {
	if len(parts) < 2 {
		return nil, fmt.Errorf("it has %d parts, not 2 or more", len(parts))
	}
	var checked []Part
	var total int64
	for _, p := range parts {
		if p.Count < 1 || p.Count > int64(limit)-total {
			return nil, fmt.Errorf("its parts have a count out of range")
		}
		total += p.Count
		if err := checkLink(cid.Cid(p.Link), codecDagCBOR); err != nil {
			return nil, err
		}
		checked = append(checked, Part{Count: int(p.Count), Link: cid.Cid(p.Link)})
	}
	return checked, nil
}
