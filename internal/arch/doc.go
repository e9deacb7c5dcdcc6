// Package arch holds the repository to its house style by tests: which package may
// import which and why, how long files and functions may be, that every package says
// what it is. It has no code of its own.
package arch
