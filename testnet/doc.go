// Package testnet runs a mesh of real meshd processes on this machine: for trying mesh
// out, for demonstrations, and for tests that hurt peers and the network between them.
//
// A testnet lives in a directory: testnet.json says what it consists of, peer-I.json how
// peer I was last started, peer-I is its home, peer-I.log its log, and partition.json,
// while it is parted, into which groups. The processes are detached: they go on when the
// command that started them has ended. They listen on loopback only, on ports that the
// kernel chooses at the first start and that a restart keeps, in a mesh with a name of its
// own, and find each other through peer 0 alone.
//
// Faults: Kill (signal 9), Restart, Pause and Resume (SIGSTOP of meshd and its tasks),
// Partition and Heal, and Chaos, which draws them from a seed. In a partition the peers
// refuse each other, through a gate that only a meshd with --testnet has: connections end
// at once and new ones fail at once, where a real network would swallow what is sent.
// Silence is what Pause gives. Two peers of different groups that were both paused when
// the partition came keep their connection for the moment that they take to wake.
//
// Commands on one directory may run at the same time: those that change which peers there
// are, or the partition, wait for one another, those that change how one peer is only for
// those of the same peer. Down leaves nothing behind.
package testnet
