// Package testnet runs a mesh of real meshd processes on this machine: for trying mesh
// out, for demonstrations, and for tests that kill and restart peers.
//
// A testnet lives in a directory: testnet.json says what it consists of, peer-I.json how
// peer I was last started, peer-I is its home, and peer-I.log its log. The processes are
// detached: they go on when the command that started them has ended. They listen on
// loopback only, on ports that the kernel chooses at the first start and that a restart
// keeps, in a mesh with a name of its own, and find each other through peer 0 alone.
//
// Commands on one directory may run at the same time: those that change which peers there
// are wait for one another, those that kill or restart a peer only for those of the same
// peer. Down leaves nothing behind.
package testnet
