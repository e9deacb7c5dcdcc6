// Package insecure signs and verifies for simulations of thousands of peers, at a
// hundredth of the cost of Ed25519. Its signatures are checksums: they show a changed
// byte or a wrong signer, and stop nobody who wants to forge one. Only the simulator and
// tests import it; no meshd is ever built with it.
package insecure

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"

	"github.com/compute-mesh/mesh/protocol"
)

// signatureSize is that of Ed25519, so that records have their real size.
const signatureSize = 64

// Signer signs for one imaginary peer or owner.
type Signer struct{ id protocol.PeerID }

// NewSigner is the signer of the n-th imaginary peer: the same ID in every run. Nobody
// has the key that the ID looks like.
func NewSigner(n uint64) Signer {
	key := sha256.Sum256(binary.BigEndian.AppendUint64([]byte("mesh insecure peer"), n))
	return Signer{protocol.PeerOf(key)}
}

// SignAs is a signer for any ID: an owner whose manifests have real signatures, say.
func SignAs(id protocol.PeerID) Signer { return Signer{id} }

// ID is the peer's.
func (s Signer) ID() protocol.PeerID { return s.id }

// Sign gives a checksum of message and signer, of the size of a signature.
func (s Signer) Sign(message []byte) ([]byte, error) {
	signature := make([]byte, signatureSize)
	sum := checksum(s.ID(), message)
	copy(signature, sum[:])
	return signature, nil
}

// Verifier accepts what a Signer of this package made, and nothing else.
type Verifier struct{}

// Verify tells whether signature is signer's checksum of message.
func (Verifier) Verify(signer protocol.PeerID, message, signature []byte) bool {
	var want [signatureSize]byte
	sum := checksum(signer, message)
	copy(want[:], sum[:])
	return subtle.ConstantTimeCompare(want[:], signature) == 1
}

func checksum(signer protocol.PeerID, message []byte) [sha256.Size]byte {
	h := sha256.New()
	h.Write([]byte(signer))
	h.Write(message)
	var sum [sha256.Size]byte
	h.Sum(sum[:0])
	return sum
}
