package node

import (
	"bytes"
	"testing"

	"github.com/compute-mesh/mesh/node/api"
)

// What is pinned at a peer stays there, whatever is collected, until it is unpinned; then it goes.
func TestPinKeepsAFile(t *testing.T) {
	nodes := startMesh(t, 2, nil)
	root := nodes[0].program("noop").Root
	if err := nodes[1].Unpin(t.Context(), root); api.KindOf(err) != api.KindNotFound {
		t.Errorf("unpin of what is not pinned: %v", err)
	}
	if err := nodes[1].Pin(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	if _, err := nodes[1].GC(t.Context()); err != nil {
		t.Fatal(err)
	}
	full, err := nodes[1].Store(t.Context())
	if err != nil || full.Pinned != 1 || full.Chunks == 0 {
		t.Fatalf("%+v, %v", full, err)
	}
	var got bytes.Buffer
	if err := nodes[1].Cat(t.Context(), root, &got); err != nil || got.Len() == 0 {
		t.Errorf("%d bytes, %v", got.Len(), err)
	}
	if err := nodes[1].Unpin(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	freed, err := nodes[1].GC(t.Context())
	if err != nil || freed.Chunks != full.Chunks {
		t.Errorf("collected %+v of %+v, %v", freed, full, err)
	}
}
