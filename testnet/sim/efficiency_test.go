package sim

import (
	"flag"
	"math"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/protocol"
)

var (
	sizes   = flag.String("efficiency", "20", "peers of the meshes whose efficiency is measured, as 10,100,1000")
	verbose = flag.Bool("counts", false, "print what efficiency runs counted")
	only    = flag.String("load", "", "only the loads whose names have this in them: equal, log-normal speeds, die")
	each    = flag.Uint64("each", 25, "tasks a peer in them")
)

// load is what an efficiency run is made of.
type load struct {
	name  string
	peers int
	sigma float64 // of the log-normal speeds; 0: equal
	dying float64 // of the peers, in an hour
	want  float64 // central / ours
}

// maxBids bounds the bids that a grant may cost, and maxMessages what a task of a large job in
// a large mesh may, beside presence.
const (
	maxBids     = 2.5
	maxMessages = 1.5
)

// TestEfficiency runs jobs beside a central scheduler. The figures of docs/design.md come
// from make scale; with few tasks a peer the end of a job weighs more, and the floors are
// lower.
func TestEfficiency(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // a fifth of a large run would be collection
	floors := [3]float64{0.93, 0.88, 0.85}
	if *each >= 100 {
		floors = [3]float64{0.97, 0.95, 0.93}
	}
	t.Logf("%-28s %8s %8s %8s %8s %8s %8s %8s %8s %8s %8s", "load", "ours", "central", "ratio", "longest", "msg/task", "presence", "bid/grant", "copies", "busiest", "ledger")
	for _, n := range numbers(t, *sizes) {
		for _, l := range []load{
			{"equal speeds", n, 0, 0, floors[0]},
			{"log-normal speeds", n, 0.6, 0, floors[1]},
			{"log-normal, 10 %/h die", n, 0.6, 0.1, floors[2]},
		} {
			if strings.Contains(l.name, *only) {
				measure(t, l)
			}
		}
	}
}

func numbers(t *testing.T, list string) (out []int) {
	n := 0
	for _, r := range list + "," {
		switch {
		case r == ',':
			out, n = append(out, n), 0
		case r >= '0' && r <= '9':
			n = 10*n + int(r-'0')
		default:
			t.Fatalf("numbers %q", list)
		}
	}
	return out
}

func measure(t *testing.T, l load) {
	t.Helper()
	dice := rand.New(rand.NewPCG(7, uint64(l.peers)))
	tasks := make([]time.Duration, uint64(l.peers)**each)
	for i := range tasks { // mean 10 s, sigma 0.5
		tasks[i] = time.Duration(float64(10*time.Second) * math.Exp(0.5*dice.NormFloat64()-0.125))
	}
	speeds := make([]int, l.peers)
	for i := range speeds {
		speeds[i] = max(50, int(1000*math.Exp(l.sigma*dice.NormFloat64())))
	}
	w := New(Config{
		Seed: 1, Peers: l.peers, Slots: 1, DelayMin: 80 * time.Millisecond, DelayMax: 80 * time.Millisecond,
		Speed: func(i int) int { return speeds[i] },
		Task:  func(_ protocol.StageIndex, i protocol.TaskIndex) time.Duration { return tasks[i] },
	})
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = uint64(len(tasks)) })
	if l.dying > 0 {
		for i := 1; i < l.peers; i++ {
			w.After(time.Duration(dice.ExpFloat64()/l.dying*float64(time.Hour)), w.Peers[i].Kill)
		}
	}
	began := time.Now()
	if !w.Run(5*time.Hour, func() bool { return w.Done(id) }) {
		report(t, w, id)
		t.Fatalf("%s: not done", l.name)
	}
	central, longest := Central(tasks, speeds, false), Central(tasks, speeds, true)
	presence := w.Counts["message: Beat"] + w.Counts["message: Digest"] + w.Counts["message: Jobs"] + w.Counts["message: JobsRequest"]
	messages := float64(w.Counts.Of("message")-presence) / float64(len(tasks))
	bids := float64(w.Counts["message: Bid"]) / float64(max(1, w.Counts["message: Grant"]))
	ratio := float64(central) / float64(w.now)
	busiest := 0
	for _, p := range w.Peers {
		busiest = max(busiest, p.messages)
	}
	t.Logf("%5d %-22s %7.0fs %7.0fs %8.3f %8.3f %8.2f %8.2f %8.2f %8d %8d %7dK   (%d steps, %.1f s)", l.peers, l.name, w.now.Seconds(), central.Seconds(),
		ratio, float64(longest)/float64(w.now), messages, float64(presence)/float64(len(tasks)), bids, w.Counts["message: Backup"], busiest, w.inv.largest>>10, w.Steps, time.Since(began).Seconds())
	if *verbose {
		t.Logf("counts:\n%s", w.Counts)
	}
	if ratio < l.want {
		t.Errorf("%s: %.3f of the central scheduler, want %.2f", l.name, ratio, l.want)
	}
	if bids > maxBids {
		t.Errorf("%s: %.2f bids a grant, at most %.1f", l.name, bids, maxBids)
	}
	if messages > maxMessages && *each >= 100 && l.peers >= 1000 {
		t.Errorf("%s: %.2f messages a task, at most %.1f", l.name, messages, maxMessages)
	}
	if len(w.Violations) > 0 {
		t.Errorf("%s: %v", l.name, w.Violations[0])
	}
}

// A stage whose tasks are many for each peer is worked through about block by block: half-way
// a good part of it is sealed.
func TestBlockByBlock(t *testing.T) {
	w := New(lan(31, 40))
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = 40 * 1000 })
	half := func() bool {
		v, _ := w.Peers[0].View(id)
		return len(v.Stages) > 0 && v.Stages[0].Done >= v.Stages[0].Tasks/2
	}
	if !w.Run(10*time.Minute, half) {
		t.Fatal("not half done")
	}
	records := w.Peers[0].machine.Records(id)
	seals := 0
	for i := range records {
		if records[i].Body.Kind() == protocol.KindSeal {
			seals++
		}
	}
	if seals < 10 {
		t.Errorf("%d of 40 blocks are sealed where half of the tasks are done", seals)
	}
	if asked, grants := w.Counts["message: WorkRequest"], w.Counts["message: Grant"]; asked > grants*3/4 {
		t.Errorf("a keeper is asked for work %d times, for %d grants: who has plenty was not asked again", asked, grants)
	}
}

// What a dead peer held is taken by few of those who look for work, not by one after another.
func TestFewAdopt(t *testing.T) {
	cfg := lan(33, 200)
	cfg.Task = func(_ protocol.StageIndex, i protocol.TaskIndex) time.Duration {
		return time.Second + time.Duration(i%7)*300*time.Millisecond
	}
	w := New(cfg)
	id := submit(t, w, 0, func(s *job.Spec) { s.Array = 200 * 10 })
	for i := range 5 {
		w.After(time.Duration(14+i)*time.Second, w.Peers[50+i].Kill)
	}
	until(t, w, id, time.Minute)
	released, adopted := w.Counts["record: Segment release for"], w.Counts["record: Segment adopt"]
	if released == 0 || adopted > 6*released {
		t.Errorf("%d adoptions, of %d ranges that were released", adopted, released)
	}
}
