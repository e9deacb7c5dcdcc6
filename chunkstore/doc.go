// Package chunkstore keeps a peer's chunks: it imports and splits input, stores chunks by their hash, moves them between
// peers, and holds them within a hard quota.
//
// A chunk is an immutable block of at most [MaxChunk] bytes, named by a CID (CIDv1 and sha2-256 where this package makes
// the name). A file of more than one chunk is a UnixFS DAG with raw leaves in the balanced layout, the same DAG and the
// same root that `ipfs add --cid-version=1 --chunker=size-1048576` makes of a file split by size, so any IPFS node can
// read it.
//
// # What it promises
//
//   - What a read returns hashes to the name it was asked by. Bytes that come over the network are checked on arrival; a
//     chunk file is checked on its first read after a restart, and by [Store.Scrub] from time to time. A corrupted one is
//     removed and reported as missing, so that it is fetched again.
//   - The quota is never passed, not even in the middle of a transfer or of an import: room is reserved before a byte is
//     written. When it presses, chunks that no pin set protects are collected, least recently used first.
//   - When [Store.Sync] returns nil, every chunk whose Put returned before the call survives a power cut. Without Sync
//     nothing of the sort is promised: what can be fetched again is not worth an fsync.
//   - Memory is bounded: an import takes the same few buffers whatever the size of its input, a fetch the window that its
//     configuration names.
//
// # What it does not do
//
// It does not know jobs, keepers or placement, and decides nothing about who should hold what: [Exchange.Fetch] is told
// whom to ask. It does not announce content. It does not encrypt.
package chunkstore
