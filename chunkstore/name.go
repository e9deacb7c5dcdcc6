package chunkstore

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// key is a chunk's SHA-256: what the store keeps chunks by. CIDs that differ in version or codec alone name the same bytes.
type key [sha256.Size]byte

func (k key) String() string { return hex.EncodeToString(k[:]) }

func parseKey(name string) (k key, ok bool) {
	if len(name) != 2*len(k) {
		return k, false
	}
	_, err := hex.Decode(k[:], []byte(name))
	return k, err == nil && k.String() == name
}

// maxIdentity is the longest identity CID that is accepted, in bytes of content: the limit of IPFS nodes (boxo's verifcid).
const maxIdentity = 128

// maxCID is the longest binary CID that is accepted: an identity CID of maxIdentity bytes with version, codec, hash code
// and length of at most two bytes each.
const maxCID = maxIdentity + 8

// multicodec of the two hashes, and the prefix of a sha2-256 multihash.
const (
	sha256Prefix = "\x12\x20"
	hashIdentity = 0x00
)

// keyOf is the key of a CID; for an identity CID, which needs no storing, inline is its content and not nil. The error is
// an ErrUnsupported.
func keyOf(c cid.Cid) (k key, inline []byte, err error) {
	if !c.Defined() {
		return k, nil, fmt.Errorf("chunkstore: empty CID: %w", ErrUnsupported)
	}
	switch c.Type() {
	case cid.Raw, cid.DagProtobuf, cid.DagCBOR:
	default:
		return k, nil, fmt.Errorf("chunkstore: cid %s: codec 0x%x: %w", c, c.Type(), ErrUnsupported)
	}
	hash := c.Hash()
	if len(hash) == len(sha256Prefix)+len(k) && string(hash[:2]) == sha256Prefix {
		copy(k[:], hash[2:])
		return k, nil, nil
	}
	d, err := multihash.Decode(hash)
	if err != nil || d.Code != hashIdentity || len(d.Digest) > maxIdentity {
		return k, nil, fmt.Errorf("chunkstore: cid %s: hash is neither sha2-256 nor a short identity: %w", c, ErrUnsupported)
	}
	return k, append([]byte{}, d.Digest...), nil
}

// cidOf names the bytes of a key under a codec.
func cidOf(codec uint64, k key) cid.Cid {
	var mh [len(sha256Prefix) + len(k)]byte
	copy(mh[:], sha256Prefix)
	copy(mh[len(sha256Prefix):], k[:])
	return cid.NewCidV1(codec, mh[:])
}

// randomName is 16 hex digits.
func randomName() string {
	var b [8]byte
	rand.Read(b[:]) // never fails, by its documentation
	return fmt.Sprintf("%016x", binary.BigEndian.Uint64(b[:]))
}
