// Package node composes the other packages into a running peer: what one meshd process is.
//
// [New] takes a [Config], opens a home directory and starts everything; [Node.Close] ends it. In between one goroutine,
// the driver, owns the state machine of package market: all that happens in the world reaches it as inputs through one
// bounded queue, and all that the machine owes the world leaves it as effects:
//
//	peers ──swarm streams──┐                             ┌─► runner: tasks in sandbox processes
//	runner, fetcher ───────┼─► inputs ─► driver ─────────┼─► fetcher: chunks from other peers
//	API, gossip, timers ───┘      (market.Machine)       └─► committer ─► journal, chunks ─► swarm, gossip
//
// # What it promises
//
//   - Nothing is sent before what it refers to is durable: messages, announcements and news of a change leave only after
//     the journal entries and the chunks of their batch and of every batch before it (docs/design.md section 5.7, I8).
//   - A journal or a disk that fails stops the peer at once: one that forgets what it said is worse than one that is off.
//   - Every Run is answered by exactly one Ended, every Fetch by exactly one Fetched, until the node closes.
//   - One process a home: a second is refused, with the first one's process ID.
//   - Every goroutine ends on Close; task processes do not outlive it.
//
// # What it does not do
//
// It decides nothing about who runs or keeps what (market), how chunks lie on disk (chunkstore), how peers are found
// (dht), what a task may do (sandbox), and prints nothing but its log: cmd/meshd and cmd/mesh are the user interface.
package node
