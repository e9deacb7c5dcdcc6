package api

import "time"

// HoldTime is how long imported content stays without a job or pin that names it: long
// enough for an import of several other inputs of the same submit to end.
const HoldTime = time.Hour

// Form says what imported items become.
type Form string

const (
	FormProgram Form = "program" // one WASM module, checked; its Root is what a submit names
	FormFiles   Form = "files"   // each item a file of its own, listed in Files
	FormInput   Form = "input"   // cut into pieces; Index names the input index
	FormLines   Form = "lines"   // one item; a task for each of its lines, no pieces
)

// ImportOptions says what to make of what is imported.
type ImportOptions struct {
	Form Form
	// Split is how FormInput is cut: "lines:8MiB", "bytes:8MiB", "file" or "none", as
	// with --split. Empty is the default.
	Split string
}

// Item is one file that is imported. Either CID names content that the mesh has, or
// its bytes follow.
type Item struct {
	Name string `json:"name"`           // relative, slash-separated; for a program its file name; empty for standard input
	CID  string `json:"cid,omitempty"`  // of content to be used in place of bytes
	Size int64  `json:"size,omitempty"` // bytes that follow; -1 where it isn't known before
}

// Imported says what was stored.
type Imported struct {
	Root   string         `json:"root,omitempty"`  // FormProgram: the program's
	Index  string         `json:"index,omitempty"` // FormInput, FormLines: the input index
	Pieces uint64         `json:"pieces"`          // tasks that the input makes
	Bytes  uint64         `json:"bytes"`
	Files  []ImportedFile `json:"files,omitempty"` // FormFiles only: in the order they came
}

// ImportedFile is a file that was stored.
type ImportedFile struct {
	CID   string `json:"cid"`
	Name  string `json:"name,omitempty"`
	Bytes uint64 `json:"bytes"`
}
