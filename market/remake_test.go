package market

import (
	"fmt"
	"testing"

	"github.com/compute-mesh/mesh/protocol"
)

// TestRemadeLeafIsThatOfTheJoin has workers give different results for the same tasks, as those of a program that is not
// deterministic: of the pages that a keeper has it takes, task by task, what the join of their Done takes, however they
// come, and a page that no Done names only where there is no other.
func TestRemadeLeafIsThatOfTheJoin(t *testing.T) {
	const tasks, workers = 40, 5
	l := newLedger(testJob(t, tasks, nil))
	add := func(rec *protocol.Record) {
		t.Helper()
		if _, err := l.add(rec); err != nil {
			t.Fatal(err)
		}
	}
	keep := signed(t, testPeer(0), &protocol.Keep{Job: l.job.ID, Groups: 1, Sequence: protocol.Sequence{Incarnation: 1, Counter: 1}})
	add(keep)
	st := l.stages[0]
	result := func(w int, task protocol.TaskIndex) protocol.Result {
		text := fmt.Appendf(nil, "worker %d task %d", w, task)
		return protocol.Result{Stdout: protocol.Output{Size: uint64(len(text)), Inline: text}}
	}
	worker := map[string]int{}
	var pages []protocol.Page
	for w := range workers {
		r := protocol.Range{Lo: protocol.TaskIndex(w * 5), Hi: tasks}
		p := protocol.Page{StageRef: st.ref, Range: r, Worker: testPeer(w).ID()}
		for task := r.Lo; task < r.Hi; task++ {
			p.Results = append(p.Results, result(w, task))
		}
		pages = append(pages, p)
		if w == workers-1 {
			continue // its worker died before its Done
		}
		c, _, err := protocol.EncodePage(p)
		if err != nil {
			t.Fatal(err)
		}
		worker[key(c)] = w
		d := &protocol.Done{StageRef: st.ref, Range: r, Page: c}
		d.Receipts = []protocol.SignedReceipt{receiptOf(t, 0, d, keep.Hash)}
		add(signed(t, testPeer(w), d))
	}
	for turn := range pages {
		a := assembly{stage: st, block: st.all(), best: make([]*origin, tasks)}
		for i := range pages {
			w := (i + turn) % len(pages)
			a.add(pages[w], w < workers-1)
		}
		differ := map[int]bool{}
		st.each(st.all(), func(r protocol.Range, c *cell) bool {
			w := worker[key(c.done.Body.(*protocol.Done).Page)]
			differ[w] = true
			for task := r.Lo; task < r.Hi; task++ {
				if got, want := a.best[task].result.Stdout.Inline, result(w, task).Stdout.Inline; string(got) != string(want) {
					t.Errorf("turn %d: %q, want %q", turn, got, want)
				}
			}
			return true
		})
		if len(differ) < 2 || a.leaf() == nil {
			t.Fatal("all results of the join are one worker's, or there is no leaf")
		}
	}
	alone := assembly{stage: st, block: st.all(), best: make([]*origin, tasks)}
	alone.add(pages[0], false)
	if alone.leaf() == nil {
		t.Error("a page that no Done names does not do where it is the only one")
	}
}
