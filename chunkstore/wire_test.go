package chunkstore

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

func FuzzRequest(f *testing.F) {
	c := cidOf(cid.Raw, key{1, 2, 3})
	f.Add(appendRequest(nil, c))
	f.Add(appendRequest(appendRequest(nil, c), cid.NewCidV0(c.Hash())))
	f.Add([]byte{0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bufio.NewReader(bytes.NewReader(data))
		var again []byte
		for {
			c, err := readRequest(r)
			if err != nil {
				break
			}
			again = appendRequest(again, c)
			keyOf(c)
		}
		if !bytes.HasPrefix(data, again) {
			t.Fatalf("requests %x encode as %x", data, again)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add(append(appendAnswer(nil, statusOK, 3), 1, 2, 3))
	f.Add(appendAnswer(nil, statusNotFound, 0))
	f.Add(append(appendAnswer(nil, statusPacked, 3), 0, 1, 2, 3))
	f.Add([]byte{0, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bufio.NewReader(bytes.NewReader(data))
		var again []byte
		for {
			s, size, err := readAnswer(r)
			if err != nil {
				break
			}
			if size < 0 || size > MaxChunk || !s.data() && size != 0 {
				t.Fatalf("status %d with %d bytes", s, size)
			}
			again = appendAnswer(again, s, size)
			body := make([]byte, min(size, len(data)))
			n, _ := io.ReadFull(r, body)
			again = append(again, body[:n]...)
			if n < size {
				break
			}
		}
		if !bytes.HasPrefix(data, again) {
			t.Fatalf("answers %x encode as %x", data, again)
		}
	})
}

// FuzzPart feeds blocks to the reader of file nodes: no panic, and sizes that add up.
func FuzzPart(f *testing.F) {
	leaf := cidOf(cid.Raw, key{9})
	node := merkledag.NodeWithData(unixfs.FilePBData([]byte("inline"), 6))
	f.Add(node.RawData())
	file := unixfs.NewFSNode(unixfs.TFile)
	file.AddBlockSize(5)
	node = merkledag.NodeWithData(must(file.GetBytes())(f))
	if err := node.AddRawLink("", &ipld.Link{Cid: leaf, Size: 5}); err != nil {
		f.Fatal(err)
	}
	f.Add(node.RawData())
	f.Add(unixfs.EmptyDirNode().RawData())
	f.Fuzz(func(t *testing.T, block []byte) {
		c := cidOf(cid.DagProtobuf, key{})
		links(c, block)
		p, err := decodePart(c, block)
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrNotFile) {
				t.Fatalf("an error without a kind: %v", err)
			}
			return
		}
		sum := uint64(len(p.inline))
		for _, child := range p.children {
			sum += child.size
		}
		if sum != p.size || p.size > 1<<62 {
			t.Fatalf("%d bytes in parts of %d", p.size, sum)
		}
	})
}

// TestLyingDAGs: nodes that contradict their children are an error where they are read, not a wrong file.
func TestLyingDAGs(t *testing.T) {
	s := testStore(t)
	leaf := must(s.Put(t.Context(), []byte("12345")))(t)
	put := func(sizes []uint64, links ...cid.Cid) cid.Cid {
		file := unixfs.NewFSNode(unixfs.TFile)
		for _, n := range sizes {
			file.AddBlockSize(n)
		}
		node := merkledag.NodeWithData(must(file.GetBytes())(t))
		for _, c := range links {
			if err := node.AddRawLink("", &ipld.Link{Cid: c}); err != nil {
				t.Fatal(err)
			}
		}
		return must(s.putNode(t.Context(), node.RawData()))(t)
	}
	good := put([]uint64{5, 5}, leaf, leaf)
	if got := fileBytes(t, s, good); string(got) != "1234512345" {
		t.Fatalf("got %q", got)
	}
	deep := good
	for range maxDepth {
		deep = put([]uint64{10}, deep)
	}
	for name, root := range map[string]cid.Cid{
		"leaf shorter":   put([]uint64{6}, leaf),
		"leaf longer":    put([]uint64{4}, leaf),
		"node shorter":   put([]uint64{11}, good),
		"sizes missing":  put([]uint64{5}, leaf, leaf),
		"links missing":  put([]uint64{5, 5}, leaf),
		"sizes overflow": put([]uint64{1 << 63, 1 << 63}, leaf, leaf),
		"too deep":       deep,
		"not a node":     cid.NewCidV1(cid.DagProtobuf, leaf.Hash()),
	} {
		r, err := s.FileReader(t.Context(), root)
		if err == nil {
			_, err = r.WriteTo(io.Discard)
		}
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	dir := must(s.putNode(t.Context(), unixfs.EmptyDirNode().RawData()))(t)
	if _, err := s.FileReader(t.Context(), dir); !errors.Is(err, ErrNotFile) {
		t.Errorf("directory: %v", err)
	}
}
