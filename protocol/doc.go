// Package protocol is what goes over the wire of a mesh: the ledger's records, receipts,
// announcements, pages, and the messages that two peers of a swarm exchange, with their
// encodings, signatures, limits and validity.
//
// It promises that whatever it returns without an error has been checked: its size
// before memory was spent on it, its shape, its signature, and every rule that follows
// from the bytes alone. No input makes it panic. A decoded value is safe to store, to
// forward and to share between goroutines; nothing in it may be changed.
//
// It does not judge what needs more than the bytes: whether a Control is signed by the
// owner that the manifest names, whether a Keep that a record names exists, whether a
// page holds what its Done says. Package market does that with the manifest and the
// ledger. It has no state, no I/O but the framing of streams, and no clock.
//
// SPEC.md has the same for whoever writes a second implementation.
package protocol
