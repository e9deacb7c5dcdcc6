package protocol

import (
	"crypto/sha256"
	"encoding/binary"
)

// The orders that break ties in the join. The lower hash stands. They are over what a
// signer cannot choose freely, never over a result, which can be ground.

// DoneOrder ranks the signers of two Done for the same task: of
//
//	SHA-256(job || stage || key || index || signer)
//
// with the binary CID of the job, the stage as 4 bytes and the index as 8 bytes, both
// big-endian, the 32 bytes of the key, and the binary peer ID of the signer.
func DoneOrder(job JobID, stage StageIndex, key InputKey, index TaskIndex, signer PeerID) Hash {
	return order(job, stage, key, uint64(index), signer)
}

// HeldOrder ranks two holders of the same task and epoch, as DoneOrder with the epoch
// for the index and the holder for the signer; no holder is the empty string.
func HeldOrder(job JobID, stage StageIndex, key InputKey, epoch Epoch, holder PeerID) Hash {
	return order(job, stage, key, uint64(epoch), holder)
}

// SealOrder ranks the signers of two seals with different roots at the same place, as
// DoneOrder with the first index that the seal covers.
func SealOrder(job JobID, stage StageIndex, key InputKey, first TaskIndex, signer PeerID) Hash {
	return order(job, stage, key, uint64(first), signer)
}

func order(job JobID, stage StageIndex, key InputKey, n uint64, who PeerID) Hash {
	b := make([]byte, 0, 128)
	b = append(b, job...)
	b = binary.BigEndian.AppendUint32(b, uint32(stage))
	b = append(b, key[:]...)
	b = binary.BigEndian.AppendUint64(b, n)
	b = append(b, who...)
	return sha256.Sum256(b)
}
