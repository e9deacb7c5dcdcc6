// Package job says what a job is: its manifest, the plan that follows from it, and the
// blocks that hold its inputs' index and its results.
//
// It makes a manifest of what a submitter wants (Build), validates it with every fault
// named, signs it and names it by its CID (Sign), and reads one from a stranger (Open).
// From the manifest alone it tells what each task is given: arguments, environment, seed
// and input (Task). It encodes lists of inputs (IndexWriter, Index) and of results
// (LeafOf, Node, Results) as DAG-CBOR blocks with real links, so that any IPFS tool can
// walk from a job to its bytes. FORMAT.md has the formats, enough for a second
// implementation.
//
// It promises: equal inputs give equal bytes; whatever is decoded encodes to the bytes
// that it came from, or is refused; sizes are checked before anything is decoded; no
// input makes it panic.
//
// It does not read clocks, files or the network, keep chunks, cut inputs, or run
// anything. Chunks come and go through functions of the caller's.
package job
