// Package e2e tests the whole of mesh from outside: real meshd processes on real sockets,
// and the real mesh command as a user types it. It has tests alone, and holds what no
// cheaper layer can show: that the job is done whoever is stopped, killed or late, that
// every command does and says what it should, and that bad input, bad chunks and hostile
// peers get an answer and break nothing. It builds both commands once; MESH_E2E_BIN names a
// directory that has them built. All that the tests start ends with them, however they end.
//
// TestChaos... are the scenarios that docs/guarantees.md promises to survive: small ones in
// every run, at full size with -chaos (make chaos), which prints what was measured.
package e2e
