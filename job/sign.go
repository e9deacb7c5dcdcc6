package job

import (
	"errors"
	"fmt"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// ManifestVersion is the version of manifests that this package writes and reads. It
// governs every format of the package: index, leaf and node too.
const ManifestVersion = 1

// MaxManifest bounds a signed manifest: arguments, environment and files of a job are
// far below it, and a peer asked to keep an unknown job fetches no more than this.
const MaxManifest = 256 << 10

// signatureDomain keeps a signature of a manifest from being one of anything else.
const signatureDomain = "/mesh/job/manifest/1\x00"

// What Open and Sign refuse, to be told apart by errors.Is.
var (
	// ErrVersion: a version that this package does not know.
	ErrVersion = errors.New("unknown version")
	// ErrSignature: not signed by the owner that the manifest names.
	ErrSignature = errors.New("bad signature")
	// ErrMesh: made for another mesh.
	ErrMesh = errors.New("other mesh")
)

// Sign makes a manifest a job: it validates m, signs it with its owner's key, and
// names it. m is taken over: it must not change afterwards.
func Sign(m Manifest, ownerKey crypto.PrivKey) (*Signed, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	if owner, err := peer.IDFromPrivateKey(ownerKey); err != nil || owner != m.Owner {
		return nil, fmt.Errorf("job: sign: the key is %s's, the manifest's owner is %s: %w", owner, m.Owner, ErrSignature)
	}
	w, data, err := manifestBytes(&m)
	if err != nil {
		return nil, err
	}
	signature, err := ownerKey.Sign(signedBytes(data))
	if err != nil {
		return nil, fmt.Errorf("job: sign: %w", err)
	}
	raw, err := signedType.encode(&wireSigned{Manifest: *w, Signature: signature})
	if err != nil {
		return nil, err
	}
	return newSigned(raw, m)
}

// Open reads a signed manifest from anybody: its size is checked before anything is
// decoded; then its form, its version, its sense (Validate) and its owner's signature.
// Raw is kept as it is and must not change afterwards. Whether the job is for this
// mesh and not past its expiry is for the caller to ask: CheckMesh, Expired.
func Open(raw []byte) (*Signed, error) {
	w, err := signedType.decode(raw)
	if err != nil {
		if v := peekVersion(raw); v > ManifestVersion {
			return nil, newerVersion(v)
		}
		return nil, err
	}
	if w.Manifest.Version > ManifestVersion {
		return nil, newerVersion(w.Manifest.Version)
	}
	m, err := w.Manifest.domain()
	if err != nil {
		return nil, malformed("manifest", err)
	}
	if err := m.Validate(); err != nil {
		return nil, err
	}
	data, err := manifestType.encode(&w.Manifest)
	if err != nil {
		return nil, err
	}
	key, err := m.Owner.ExtractPublicKey()
	if err != nil {
		return nil, fmt.Errorf("job: manifest: owner %s: %w: %w", m.Owner, ErrSignature, err)
	}
	if ok, err := key.Verify(signedBytes(data), w.Signature); err != nil || !ok {
		return nil, fmt.Errorf("job: manifest: not signed by its owner %s: %w", m.Owner, ErrSignature)
	}
	return newSigned(raw, m)
}

// CheckMesh refuses a manifest that was made for another mesh than the one named.
func (m *Manifest) CheckMesh(name string) error {
	if m.Mesh != name {
		return fmt.Errorf("job: manifest: it is for mesh %q, this peer is in mesh %q: submit it there, or start meshd with --mesh %q: %w",
			m.Mesh, name, m.Mesh, ErrMesh)
	}
	return nil
}

func newSigned(raw []byte, m Manifest) (*Signed, error) {
	c, err := cidOf(codecDagCBOR, raw)
	if err != nil {
		return nil, err
	}
	return &Signed{ID: protocol.JobIDOf(c), Raw: raw, Manifest: m}, nil
}

func signedBytes(manifest []byte) []byte {
	return append([]byte(signatureDomain), manifest...)
}

func newerVersion(v int64) error {
	return fmt.Errorf("job: manifest: it has version %d, this peer knows %d: update mesh: %w", v, ManifestVersion, ErrVersion)
}

// peekVersion finds the version of a manifest whose shape is not known; 0: it has none.
func peekVersion(raw []byte) int64 {
	if len(raw) > MaxManifest {
		return 0
	}
	var w struct {
		Manifest struct {
			Version int64 `cbor:"version"`
		} `cbor:"manifest"`
	}
	if err := laxMode().Unmarshal(raw, &w); err != nil {
		return 0
	}
	return w.Manifest.Version
}
