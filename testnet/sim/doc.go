// Package sim runs the real market machine for many peers in virtual time: one
// goroutine, one queue of events, and one seed from which every delay, loss and crash is
// drawn. The same configuration gives the same trace, bit for bit, and so does a failure.
//
// What is real: every market.Machine, its journal entries, the manifests, pages, leaves
// and nodes. What is not: the network (a delay, a loss), the disk (a slice of entries
// that survives a crash), the sandbox (a result computed from stage and index, after a
// time), and signatures (package insecure).
package sim
