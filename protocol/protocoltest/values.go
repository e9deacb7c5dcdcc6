// Package protocoltest draws valid values of everything that goes over the wire, for
// property tests (pgregory.net/rapid) of this and other packages. What it draws covers
// every field and the ends of every bound; it draws nothing that protocol refuses.
package protocoltest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"slices"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/multiformats/go-multihash"
	"pgregory.net/rapid"
)

// Signer is the n-th of a row of real Ed25519 keys that are the same in every run.
func Signer(n uint8) protocol.Signer {
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize)))
	if err != nil {
		panic(err)
	}
	s, err := protocol.NewSigner(key)
	if err != nil {
		panic(err)
	}
	return s
}

// CID is that of a chunk with the content, of the codec.
func CID(codec uint64, content string) cid.Cid {
	sum := sha256.Sum256([]byte(content))
	return cid.NewCidV1(codec, append(multihash.Multihash{0x12, 0x20}, sum[:]...))
}

// CIDs draws CIDs that may name a chunk.
func CIDs(t *rapid.T, label string) cid.Cid {
	codec := rapid.SampledFrom([]uint64{cid.Raw, cid.DagProtobuf, cid.DagCBOR}).Draw(t, label+" codec")
	return CID(codec, rapid.StringN(0, 8, -1).Draw(t, label+" content"))
}

// Job draws the ID of a job.
func Job(t *rapid.T) protocol.JobID {
	return protocol.JobIDOf(CID(cid.DagCBOR, rapid.StringN(0, 4, -1).Draw(t, "job")))
}

// Hash draws a hash that is not zero.
func Hash(t *rapid.T, label string) protocol.Hash {
	return sha256.Sum256([]byte(rapid.StringN(0, 4, -1).Draw(t, label)))
}

// Peer draws the ID of one of the Signers from..to.
func Peer(t *rapid.T, from, to uint8, label string) protocol.PeerID {
	return Signer(rapid.Uint8Range(from, to).Draw(t, label)).ID()
}

// Sequence draws a sequence number.
func Sequence(t *rapid.T) protocol.Sequence {
	return protocol.Sequence{Incarnation: count(t, "incarnation"), Counter: count(t, "counter")}
}

func count(t *rapid.T, label string) uint64 {
	return rapid.Uint64Range(0, protocol.MaxCount).Draw(t, label)
}

// Stage draws a stage of the job.
func Stage(t *rapid.T, job protocol.JobID) protocol.StageRef {
	return protocol.StageRef{
		Job:   job,
		Stage: protocol.StageIndex(rapid.Uint32Range(0, protocol.MaxStages-1).Draw(t, "stage")),
		Key:   Hash(t, "key"),
	}
}

// Life draws a life.
func Life(t *rapid.T) protocol.Life {
	return protocol.Life(rapid.Uint32Range(0, uint32(protocol.MaxLife)).Draw(t, "life"))
}

// Epoch draws an epoch.
func Epoch(t *rapid.T, from protocol.Epoch) protocol.Epoch {
	return protocol.Epoch(rapid.Uint64Range(uint64(from), uint64(protocol.MaxEpoch)).Draw(t, "epoch"))
}

// Task draws a task.
func Task(t *rapid.T) protocol.TaskIndex {
	return protocol.TaskIndex(rapid.Uint64Range(0, protocol.MaxTasks-1).Draw(t, "task"))
}

// Range draws a range that is not empty.
func Range(t *rapid.T) protocol.Range {
	lo := Task(t)
	hi := rapid.Uint64Range(uint64(lo)+1, protocol.MaxTasks).Draw(t, "hi")
	return protocol.Range{Lo: lo, Hi: protocol.TaskIndex(hi)}
}

// BlockRange draws a range of at most n tasks of one block.
func BlockRange(t *rapid.T, n uint64) protocol.Range {
	lo := Task(t)
	end := uint64(lo.Block().Range(protocol.MaxTasks).Hi)
	hi := rapid.Uint64Range(uint64(lo)+1, min(end, uint64(lo)+n)).Draw(t, "hi")
	return protocol.Range{Lo: lo, Hi: protocol.TaskIndex(hi)}
}

func groups(t *rapid.T) protocol.GroupSet {
	return protocol.GroupSet(rapid.Uint64().Draw(t, "groups"))
}

// text draws a text for people of at most protocol.MaxDetail bytes.
func text(t *rapid.T) string {
	return rapid.StringN(0, -1, protocol.MaxDetail).Draw(t, "text")
}

// Page draws a page of up to 20 results.
func Page(t *rapid.T) protocol.Page {
	p := protocol.Page{StageRef: Stage(t, Job(t)), Life: Life(t), Range: BlockRange(t, 20), Worker: Peer(t, 0, 9, "worker")}
	for range p.Range.Len() {
		p.Results = append(p.Results, result(t))
	}
	return p
}

func result(t *rapid.T) protocol.Result {
	r := protocol.Result{Exit: rapid.Int32().Draw(t, "exit"), Stdout: output(t), Log: output(t),
		Wall: rapid.Uint64().Draw(t, "wall"), CPU: rapid.Uint64().Draw(t, "cpu")}
	names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-zé]{1,3}(/[a-z.]{0,3}x){0,2}`), 0, 4, rapid.ID).Draw(t, "names")
	slices.Sort(names)
	for _, name := range names {
		r.Files = append(r.Files, protocol.File{Name: name, Output: output(t)})
	}
	return r
}

func output(t *rapid.T) protocol.Output {
	if rapid.Bool().Draw(t, "large") {
		return protocol.Output{Root: CIDs(t, "root"), Size: rapid.Uint64().Draw(t, "size")}
	}
	inline := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "inline")
	if len(inline) == 0 {
		return protocol.Output{}
	}
	return protocol.Output{Inline: inline, Size: uint64(len(inline))}
}
