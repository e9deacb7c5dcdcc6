// Package api is the control API of a peer: HTTP with JSON over a unix socket in its
// home directory, and the Go client that the command line uses.
//
// It promises that the JSON field names are stable (they are what `mesh --json`
// prints), that an error keeps its kind on its way to the client, that bulk data is
// streamed in constant memory in both directions, and that only the user who owns the
// home can connect (the socket has mode 0600).
//
// It does not know what a job means: identifiers are text here, and what a Backend
// (the node) says is passed on as it is. It depends on no other package of this module
// and on no network library, so that a command starts in a few milliseconds.
package api
