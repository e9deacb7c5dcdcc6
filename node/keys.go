package node

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// signer signs with a key. Ed25519 is deterministic.
type signer struct {
	key crypto.PrivKey
	id  protocol.PeerID
}

var _ protocol.Signer = signer{}

func newSigner(key crypto.PrivKey) (protocol.Signer, error) {
	id, err := peer.IDFromPrivateKey(key)
	return signer{key, id}, err
}

func (s signer) ID() protocol.PeerID                 { return s.id }
func (s signer) Sign(message []byte) ([]byte, error) { return s.key.Sign(message) }

// trusting takes every signature for good. It is for this peer's own journal, whose records were checked before they
// were written, and whose bytes have a checksum: to check them again would take 50 us a record at each start.
type trusting struct{}

func (trusting) Verify(protocol.PeerID, []byte, []byte) bool { return true }

// seedOf makes a number of a peer's name, so that no two peers draw the same jitter.
func seedOf(p protocol.PeerID) uint64 {
	h := sha256.Sum256([]byte(p))
	return binary.BigEndian.Uint64(h[:])
}
