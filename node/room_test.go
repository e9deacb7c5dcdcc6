package node

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/compute-mesh/mesh/node/api"
)

// A peer that is started again with less room than what it keeps takes hands jobs over to another peer until it fits, and no
// more; each stays until the other has it.
func TestSmallerQuotaHandsJobsOver(t *testing.T) {
	dir := t.TempDir()
	cfg := testConfig(t, dir+"/first")
	first := startNode(t, cfg)
	var jobs []string
	for i := range 4 {
		text := make([]byte, 6<<20)
		rand.NewChaCha8([32]byte{byte(i)}).Read(text)
		in, err := first.Import(t.Context(), api.ImportOptions{Form: api.FormInput, Split: "none"}, &items{names: []string{"in"}, texts: []string{string(text)}})
		if err != nil {
			t.Fatal(err)
		}
		id := first.submit(api.SubmitRequest{Map: first.program("noop"), Index: in.Index, Replicas: ptr(1)})
		if s := first.await(id); s.State != api.StateDone {
			t.Fatalf("%+v", s)
		}
		jobs = append(jobs, id)
	}
	first.expireImports(time.Now().Add(2 * api.HoldTime))
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	cfg.Quota = smallestQuota // room for two of them
	first = startNode(t, cfg)
	fits := func() bool {
		if err := first.room.look(t.Context()); err != nil {
			t.Fatal(err)
		}
		return first.store.Used() <= cfg.Quota
	}
	if fits() {
		t.Fatalf("%d bytes: nothing is to hand over", first.store.Used())
	}
	if c := first.check("quota"); c.Level != api.LevelWarning || !strings.Contains(c.Detail, "2 jobs") {
		t.Errorf("%+v", c)
	}
	other := testConfig(t, dir+"/second")
	other.Slots, other.Bootstrap = 0, []string{first.Addrs()[0].String()}
	second := startNode(t, other)
	eventually(t, "what is kept fits into the quota", fits)
	eventually(t, "the doctor is content", func() bool { return first.check("quota").Level == api.LevelOK })

	kept := 0
	for _, text := range jobs {
		id, err := parseJob(text)
		if err != nil {
			t.Fatal(err)
		}
		if len(first.pinned(setOf(id))) > 0 {
			kept++
		}
		if _, sum := second.results(text, api.ResultsOptions{}); sum.Outputs != 1 {
			t.Errorf("%+v", sum)
		}
	}
	if kept != 2 {
		t.Errorf("it keeps %d jobs, want 2", kept)
	}
}

// What is handed over is the smallest job that is enough, or the largest and more, beside what is on its way.
func TestChooseWhatGoes(t *testing.T) {
	list := func() []kept {
		return []kept{{id: "a", bytes: 5}, {id: "b", bytes: 10}, {id: "c", bytes: 20}, {id: "d", bytes: 3, going: true}}
	}
	for _, c := range []struct {
		excess int64
		want   string
		rest   int64
	}{{1, "d", 0}, {3, "d", 0}, {8, "da", 0}, {9, "db", 0}, {23, "dc", 0}, {24, "dca", 0}, {35, "dcba", 0}, {50, "dcba", 12}} {
		chosen, rest := choose(list(), c.excess)
		var got bytes.Buffer
		for _, k := range chosen {
			got.WriteString(string(k.id))
		}
		if got.String() != c.want || rest != c.rest {
			t.Errorf("%d bytes: %s and %d, want %s and %d", c.excess, &got, rest, c.want, c.rest)
		}
	}
}
