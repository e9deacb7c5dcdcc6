package node

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/node/api"
	"github.com/compute-mesh/mesh/protocol"
)

// lines is a text of so many bytes of which no two pieces are equal.
func randomLines(bytes int) string {
	r := rand.New(rand.NewPCG(1, 2))
	text := make([]byte, bytes)
	for i := range text {
		if text[i] = 'a' + byte(r.Uint32N(26)); i%100 == 99 {
			text[i] = '\n'
		}
	}
	return string(text)
}

// large submits a job of so many chunk groups, whose tasks read nothing and end at once.
func (n *testNode) large(groups int) (string, *job.Signed) {
	n.t.Helper()
	in, err := n.Import(n.t.Context(), api.ImportOptions{Form: api.FormInput, Split: "lines:2MiB"},
		&items{names: []string{"text"}, texts: []string{randomLines(groups * job.GroupBytes)}})
	if err != nil {
		n.t.Fatal(err)
	}
	id := n.submit(api.SubmitRequest{Map: n.contract("exit", "0"), Index: in.Index, Split: "lines:2MiB", Replicas: ptr(1)})
	parsed, err := protocol.ParseJobID(id)
	if err != nil {
		n.t.Fatal(err)
	}
	signed, err := openManifest(n.t.Context(), n.content, "test", parsed, source{})
	if err != nil {
		n.t.Fatal(err)
	}
	if signed.Manifest.Groups != groups {
		n.t.Fatalf("%d groups, want %d", signed.Manifest.Groups, groups)
	}
	return id, signed
}

// TestJobLargerThanAnyStore wants a job for which no peer but its submitter's has room to be kept by several together.
func TestJobLargerThanAnyStore(t *testing.T) {
	const groups = 6
	quotas := []int64{1 << 30, 64 << 20, 64 << 20, 48 << 20, smallestQuota}
	nodes := startMesh(t, len(quotas), func(i int, cfg *Config) { cfg.Quota = quotas[i] })
	id, signed := nodes[0].large(groups)
	eventually(t, "the job is accepted", func() bool {
		s, err := nodes[0].Status(t.Context(), id)
		return err == nil && s.Accepted && s.Keepers == 1 && s.Groups == groups
	})
	if s := nodes[0].await(id); s.State != api.StateDone {
		t.Fatalf("%+v", s)
	}
	for i, n := range nodes[1:] {
		if n.store.Used() > quotas[i+1] {
			t.Errorf("peer %d uses %d bytes of %d", i+1, n.store.Used(), quotas[i+1])
		}
	}
	for g := range groups {
		if n := holdersOf(t, nodes[1:], signed, g); n < 1 {
			t.Errorf("group %d is with nobody", g)
		}
	}
}

// holdersOf counts the peers that have all the input of a chunk group.
func holdersOf(t *testing.T, nodes []*testNode, signed *job.Signed, g int) (holders int) {
	t.Helper()
	index, err := job.ReadIndex(signed.Manifest.Stages[0].Source.Index, nodes[0].content.getter(t.Context(), source{job: signed.ID}))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		whole := true
		for e, err := range index.All(signed.Manifest.GroupTasks(0, g)) {
			if err != nil {
				t.Fatal(err)
			}
			missing, err := n.store.Missing(t.Context(), e.Root)
			whole = whole && err == nil && len(missing) == 0
		}
		if whole {
			holders++
		}
	}
	return holders
}

// TestGroupsAreLetGoOf wants the pins of a group to go alone, and all with the job.
func TestGroupsAreLetGoOf(t *testing.T) {
	nodes := startMesh(t, 2, func(_ int, cfg *Config) { cfg.Slots = 0 })
	id, signed := nodes[0].large(3)
	n := nodes[1]
	eventually(t, "the job is accepted", func() bool {
		s, err := nodes[0].Status(t.Context(), id)
		return err == nil && s.Accepted
	})
	sets := func() (list []string) {
		if err := n.store.PinSets(func(set string) bool { list = append(list, set[bytes.IndexByte([]byte(set+"/"), '/')+1:]); return true }); err != nil {
			t.Fatal(err)
		}
		return list
	}
	want := []string{id, id + "/1", id + "/2"}
	if got := sets(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("pinned %q, want %q", got, want)
	}
	if err := n.pins.drop(market.Drop{Job: signed.ID, Groups: 1 << 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.store.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	for g, want := range []int{1, 0, 1} {
		if got := holdersOf(t, []*testNode{n}, signed, g); got != want {
			t.Errorf("group %d: %d holders, want %d", g, got, want)
		}
	}
	if err := n.pins.drop(market.Drop{Job: signed.ID}); err != nil {
		t.Fatal(err)
	}
	if got := sets(); len(got) > 0 {
		t.Errorf("pinned %q after the job", got)
	}
}
