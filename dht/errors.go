package dht

import (
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
)

var (
	// ErrOtherMesh: the peer was reached, but is not of this mesh. The error is an *OtherMeshError.
	ErrOtherMesh = errors.New("peer of another mesh")
	// ErrOtherVersion: the peer is of this mesh, and speaks another version of its protocols. The error is an *OtherVersionError.
	ErrOtherVersion = errors.New("peer of another version")
	// ErrKeyType: the peer's identity is not an Ed25519 key.
	ErrKeyType = errors.New("peer ID is not that of an Ed25519 key")
	// ErrSelf: the peer is this one.
	ErrSelf = errors.New("that is this peer itself")
	// ErrNoPeers: there is nobody to tell. What was to be told is worth telling again when OnPeer says so.
	ErrNoPeers = errors.New("no other peer of the mesh is connected")
	// ErrTooLarge: an announcement is over MaxAnnouncement.
	ErrTooLarge = errors.New("announcement too large")
)

// OtherMeshError says what a peer speaks that is not of this mesh.
type OtherMeshError struct {
	Peer  peer.ID
	Mesh  string // the mesh it belongs to; empty: it speaks no mesh's protocol
	Agent string // the software it says it is, as it says it: escape it before printing
}

func (e *OtherMeshError) Error() string {
	if e.Mesh == "" {
		return fmt.Sprintf("dht: peer %s (%.100q) is not a meshd: it speaks no mesh protocol", e.Peer, e.Agent)
	}
	return fmt.Sprintf("dht: peer %s belongs to mesh %q, not to this one: start one of the two with the other's --mesh", e.Peer, e.Mesh)
}

// Is makes errors.Is(err, ErrOtherMesh) hold.
func (e *OtherMeshError) Is(target error) bool { return target == ErrOtherMesh }

// OtherVersionError says what version of a protocol a peer of this mesh speaks.
type OtherVersionError struct {
	Peer         peer.ID
	Protocol     string // swarm, query ...
	Theirs, Ours string
}

func (e *OtherVersionError) Error() string {
	return fmt.Sprintf("dht: peer %s speaks version %.20q of the %s protocol, this meshd version %s: upgrade the older of the two", e.Peer, e.Theirs, e.Protocol, e.Ours)
}

// Is makes errors.Is(err, ErrOtherVersion) hold.
func (e *OtherVersionError) Is(target error) bool { return target == ErrOtherVersion }
