// Package pb is the generated code of protocol/wire.proto: how bytes on the wire are
// laid out, and nothing of what they mean or when they are valid. Only package protocol
// uses it; everybody else sees protocol's own types, which have been checked.
package pb
