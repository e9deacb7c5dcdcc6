package job

import (
	"testing"

	"github.com/compute-mesh/mesh/protocol"
)

func BenchmarkLeafOf(b *testing.B) {
	results := numbered(protocol.BlockSize)
	for b.Loop() {
		if _, err := LeafOf(results); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeLeaf(b *testing.B) {
	blocks, err := LeafOf(numbered(protocol.BlockSize))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := DecodeLeaf(blocks[0].Data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	raw := sign(b, build(b, fullSpec(b))).Raw
	for b.Loop() {
		if _, err := Open(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTask(b *testing.B) {
	m := build(b, fullSpec(b))
	piece := Entry{Root: rawCID(b, "piece"), Size: 5, Name: "a.txt"}
	for b.Loop() {
		if _, err := m.Task(0, 7, piece); err != nil {
			b.Fatal(err)
		}
	}
}
