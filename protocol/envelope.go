package protocol

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/crypto/pb"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Signer signs for one peer or owner.
type Signer interface {
	// ID names the key that signs.
	ID() PeerID
	// Sign gives the 64 bytes of the signature over message, which it does not keep.
	Sign(message []byte) ([]byte, error)
}

// Verifier judges signatures. It is called by many goroutines at once.
type Verifier interface {
	// Verify tells whether signature is signer's over message. It keeps neither.
	// signer is always the ID of an Ed25519 key.
	Verify(signer PeerID, message, signature []byte) bool
}

// NewSigner is the Signer of an Ed25519 key; other keys name no peer of a mesh.
func NewSigner(key crypto.PrivKey) (Signer, error) {
	if key.Type() != pb.KeyType_Ed25519 {
		return nil, fault("key", "its type is "+key.Type().String()+", not Ed25519", ErrInvalid)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("protocol: key: %w", err)
	}
	return keySigner{key, id}, nil
}

type keySigner struct {
	key crypto.PrivKey
	id  PeerID
}

func (s keySigner) ID() PeerID                          { return s.id }
func (s keySigner) Sign(message []byte) ([]byte, error) { return s.key.Sign(message) }

// Ed25519 is the Verifier of a real mesh.
type Ed25519 struct{}

// Verify tells whether signature is an Ed25519 signature (RFC 8032) of signer's.
func (Ed25519) Verify(signer PeerID, message, signature []byte) bool {
	return ValidPeer(signer) && ed25519.Verify(ed25519.PublicKey(signer[len(peerPrefix):]), message, signature)
}

// Codec opens what peers have signed. The zero value checks Ed25519 signatures; a
// Verifier of one's own can remember (Seen) or, in a simulation, be cheap.
type Codec struct{ Verifier Verifier }

func (c Codec) verifier() Verifier {
	if c.Verifier == nil {
		return Ed25519{}
	}
	return c.Verifier
}

// An Ed25519 peer ID is an identity multihash of the protobuf of the key
// (libp2p specification "Peer Ids and Keys"); the same 36 bytes stand in an envelope.
const (
	keyPrefix     = "\x08\x01\x12\x20" // type Ed25519, 32 bytes of data
	peerPrefix    = "\x00\x24" + keyPrefix
	peerSize      = len(peerPrefix) + ed25519.PublicKeySize
	publicKeySize = len(keyPrefix) + ed25519.PublicKeySize
)

// ValidPeer tells whether id is that of an Ed25519 key.
func ValidPeer(id PeerID) bool {
	return len(id) == peerSize && string(id[:len(peerPrefix)]) == peerPrefix
}

// PeerOf is the ID of the peer with the Ed25519 public key.
func PeerOf(publicKey [ed25519.PublicKeySize]byte) PeerID {
	return PeerID(peerPrefix + string(publicKey[:]))
}

// envelope is a signed envelope as libp2p's RFC 0002 has it, opened. Its slices are
// parts of what was opened.
type envelope struct {
	signer    PeerID
	kind      []byte // the payload type
	payload   []byte
	signature []byte
	hash      Hash // of what was signed and who signed it; verify fills it in
}

// signEnvelope signs the payload for the domain: a signature for one domain is worth
// nothing in another. It returns the encoded envelope and its hash.
func signEnvelope(s Signer, domain string, payloadType, payload []byte) ([]byte, Hash, error) {
	id := s.ID()
	if !ValidPeer(id) {
		return nil, Hash{}, fault("envelope", "its signer is no Ed25519 peer", ErrInvalid)
	}
	message := signedBytes(domain, payloadType, payload, id)
	signature, err := s.Sign(message[:len(message)-len(id)])
	if err != nil {
		return nil, Hash{}, fmt.Errorf("protocol: envelope: %w", err)
	}
	if len(signature) != ed25519.SignatureSize {
		return nil, Hash{}, fault("envelope", "a signature that is not 64 bytes", ErrSignature)
	}
	raw := make([]byte, 0, 2+publicKeySize+12+len(payloadType)+len(payload)+2+len(signature))
	raw = append(raw, tagPublicKey, byte(publicKeySize))
	raw = append(raw, id[2:]...)
	raw = appendField(raw, tagType, payloadType)
	raw = appendField(raw, tagPayload, payload)
	raw = appendField(raw, tagSignature, signature)
	return raw, sha256.Sum256(message), nil
}

// verify checks the signature and fills in the hash.
func (c Codec) verify(e *envelope, domain string) error {
	message := signedBytes(domain, e.kind, e.payload, e.signer)
	if !c.verifier().Verify(e.signer, message[:len(message)-len(e.signer)], e.signature) {
		return fault("envelope", "by "+e.signer.String()+" for "+domain, ErrSignature)
	}
	e.hash = sha256.Sum256(message)
	return nil
}

// signedBytes is what a signature covers, each part after its length, and then, which
// only the hash covers, the signer.
func signedBytes(domain string, payloadType, payload []byte, signer PeerID) []byte {
	b := make([]byte, 0, 3*binary.MaxVarintLen32+len(domain)+len(payloadType)+len(payload)+len(signer))
	b = binary.AppendUvarint(b, uint64(len(domain)))
	b = append(b, domain...)
	b = binary.AppendUvarint(b, uint64(len(payloadType)))
	b = append(b, payloadType...)
	b = binary.AppendUvarint(b, uint64(len(payload)))
	b = append(b, payload...)
	return append(b, signer...)
}

// The tags of an envelope's protobuf fields, all of them length-delimited.
const (
	tagPublicKey = 1<<3 | 2
	tagType      = 2<<3 | 2
	tagPayload   = 3<<3 | 2
	tagSignature = 5<<3 | 2
)

func appendField(b []byte, tag byte, field []byte) []byte {
	b = append(b, tag)
	b = binary.AppendUvarint(b, uint64(len(field)))
	return append(b, field...)
}

// parseEnvelope splits an envelope. It takes the one canonical encoding (the four
// fields in order, shortest lengths, nothing else), so that nobody can blow up or vary
// what another has signed.
func parseEnvelope(raw []byte, limit int) (envelope, error) {
	if len(raw) > limit {
		return envelope{}, fault("envelope", fmt.Sprintf("%d bytes, at most %d", len(raw), limit), ErrSize)
	}
	var e envelope
	key, rest, ok := cutField(raw, tagPublicKey)
	if !ok || len(key) != publicKeySize || string(key[:len(keyPrefix)]) != keyPrefix {
		return envelope{}, fault("envelope", "no Ed25519 key", ErrEncoding)
	}
	e.signer = PeerID(peerPrefix + string(key[len(keyPrefix):]))
	if e.kind, rest, ok = cutField(rest, tagType); !ok || len(e.kind) == 0 {
		return envelope{}, fault("envelope", "no payload type", ErrEncoding)
	}
	if e.payload, rest, ok = cutField(rest, tagPayload); !ok {
		return envelope{}, fault("envelope", "no payload", ErrEncoding)
	}
	if e.signature, rest, ok = cutField(rest, tagSignature); !ok || len(e.signature) != ed25519.SignatureSize || len(rest) != 0 {
		return envelope{}, fault("envelope", "no signature of 64 bytes at its end", ErrEncoding)
	}
	return e, nil
}

// cutField takes a field with the tag off the front of b.
func cutField(b []byte, tag byte) (field, rest []byte, ok bool) {
	if len(b) == 0 || b[0] != tag {
		return nil, nil, false
	}
	n, size := shortUvarint(b[1:])
	if size == 0 || n > uint64(len(b)-1-size) {
		return nil, nil, false
	}
	b = b[1+size:]
	return b[:n:n], b[n:], true
}

// shortUvarint reads an unsigned varint in its shortest form; size 0 says there is none.
func shortUvarint(b []byte) (n uint64, size int) {
	n, size = binary.Uvarint(b)
	if size <= 0 || size > 1 && b[size-1] == 0 {
		return 0, 0
	}
	return n, size
}
