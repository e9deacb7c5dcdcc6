package sim

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/compute-mesh/mesh/protocol/insecure"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
)

// ownerKey is the key of every simulated owner.
func ownerKey() crypto.PrivKey {
	seed := sha256.Sum256([]byte("mesh sim owner"))
	key, _, err := crypto.GenerateEd25519Key(bytes.NewReader(seed[:]))
	if err != nil {
		panic(fmt.Sprintf("sim: owner key: %v", err)) // a reader of 32 bytes always makes one
	}
	return key
}

// ownerSigner signs orders so that the simulation's verifier accepts them.
func ownerSigner() protocol.Signer {
	id, err := peer.IDFromPrivateKey(ownerKey())
	if err != nil {
		panic(fmt.Sprintf("sim: owner: %v", err)) // an Ed25519 key always has an ID
	}
	return insecure.SignAs(id)
}

// newJob makes an array job of 10 tasks with what change makes of it.
func newJob(w *World, p *Peer, change func(*job.Spec)) (*job.Signed, error) {
	key := ownerKey()
	owner, err := protocol.NewSigner(key)
	if err != nil {
		return nil, err
	}
	spec := job.DefaultSpec()
	spec.Mesh, spec.Owner, spec.Submitter = "sim", owner.ID(), p.ID()
	spec.Now = time.UnixMilli(epoch + w.now.Milliseconds())
	binary.BigEndian.PutUint64(spec.Nonce[:], uint64(len(w.jobs)+1))
	spec.Map = job.Command{Program: Program("map.wasm")}
	spec.Array = 10
	if change != nil {
		change(&spec)
	}
	m, err := job.Build(spec)
	if err != nil {
		return nil, err
	}
	return job.Sign(m, key)
}

// Program is a program file with a name.
func Program(name string) job.File {
	h, err := multihash.Sum([]byte(name), multihash.SHA2_256, -1)
	if err != nil {
		panic(fmt.Sprintf("sim: hash: %v", err)) // SHA-256 is always there
	}
	return job.File{Name: name, Root: cid.NewCidV1(cid.Raw, h), Size: 1}
}
