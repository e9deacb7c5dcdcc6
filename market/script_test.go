package market

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/compute-mesh/mesh/protocol/insecure"
	"github.com/ipfs/go-cid"
)

var rewrite = flag.Bool("rewrite", false, "write what the scripts print into testdata")

// TestScripts runs testdata/*.txt: commands, each followed by "----", what the machines
// then did, and an empty line. -rewrite writes the second part anew; read the difference
// before it is committed.
//
//	peers N [slots=S]                the next peers of a, b, c ..., not connected
//	up P Q | up all, down P Q        connections come and go
//	submit P tasks=N [input=MiB] [replicas=R] [retries=K] [reduce] [fanin=K] [keepgoing] [timeout=D] [keep=D] [mesh=M]
//	gossip                           announcements reach the neighbours; nogossip: nobody
//	deliver|drop [from=P] [to=P] [kind=K]   the messages on their way; deliver all: until there are none
//	again [from=P] [to=P] [kind=K]   the last such message that was sent comes once more
//	lose [from=P] [to=P] [kind=K]    from now on such messages never arrive; arrive: all do again
//	fetched [P] [fail]  probed [P] [dead]   what is under way ends
//	end P task=I, fail P task=I, release P task=I [missing]    [stage=S]
//	tick D                           time passes: who wants to be woken is
//	run D [noend], finish D          everything happens for a while (tasks do not end); until no peer has the job running
//	crash P, start P, gap P, leave P [forgood], full P [groups=N] (has no room to keep a job, or for N groups), rot P (its blocks are gone)
//	handover P [none]                it has no room for the last job; or has again
//	damaged P                        it learns that chunks of its jobs are bad
//	died P task=I,J... [alone]       after a start: they were running here when P crashed
//	checkpoint P task=I number=K [stage=S]   a running task has made its K-th
//	cancel P, remove P, retry P, pause P, resume P     orders of the owner
//	quiet, loud                      what is printed
//	state [P], running [P], table [P], pending
func TestScripts(t *testing.T) {
	names, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(names) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got := runScript(t, string(data))
			if *rewrite {
				if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(data) {
				t.Errorf("%s: %s", name, firstDifference(string(data), got))
			}
		})
	}
}

// runScript gives the script with what its commands print now.
func runScript(t *testing.T, text string) string {
	w := newScript(t)
	var out strings.Builder
	skipping := false // what the command before printed when the script was written
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "----":
			skipping = true
		case line == "":
			if !skipping {
				out.WriteString("\n")
			}
			skipping = false
		case skipping:
		case strings.HasPrefix(line, "#"):
			out.WriteString(line + "\n")
		default:
			out.WriteString(line + "\n----\n")
			w.out.Reset()
			w.command(line)
			out.WriteString(w.out.String() + "\n")
			skipping = true
		}
	}
	if w.stuck {
		t.Error("a machine owed effects without end")
	}
	return out.String()
}

func firstDifference(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("line %d:\nwant %s\n got %s", i+1, a[i], b[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(b), len(a))
}

// line is a command's words: what has no '=', in order, and the rest by name.
type line struct {
	w     *script
	words []string
	named map[string]string
}

func (l *line) has(word string) bool {
	for _, s := range l.words {
		if s == word {
			return true
		}
	}
	return false
}

func (l *line) number(name string, otherwise int) int {
	if l.named[name] == "" {
		return otherwise
	}
	n, err := strconv.Atoi(l.named[name])
	if err != nil {
		l.w.Fatalf("%s: %v", name, err)
	}
	return n
}

func (l *line) duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		l.w.Fatal(err)
	}
	return d
}

// peersOf are the peers named; all where none is.
func (l *line) peersOf() []*scriptPeer {
	var list []*scriptPeer
	for _, p := range l.w.peers {
		if l.has(p.name) {
			list = append(list, p)
		}
	}
	if len(list) == 0 {
		return l.w.peers
	}
	return list
}

func (l *line) match(m mail) bool {
	return (l.named["from"] == "" || l.named["from"] == m.from.name) && (l.named["to"] == "" || l.named["to"] == m.to.name) &&
		(l.named["kind"] == "" || l.named["kind"] == kindOf(m.msg))
}

func (w *script) command(text string) {
	fields := strings.Fields(text)
	l := &line{w: w, named: map[string]string{}}
	for _, f := range fields[1:] {
		if k, v, ok := strings.Cut(f, "="); ok {
			l.named[k] = v
		} else {
			l.words = append(l.words, f)
		}
	}
	for _, try := range []func(string, *line) bool{w.setUp, w.traffic, w.work, w.show} {
		if try(fields[0], l) {
			return
		}
	}
	w.Fatalf("unknown command %q", text)
}

func (w *script) setUp(command string, l *line) bool {
	switch command {
	case "peers":
		n, err := strconv.Atoi(l.words[0])
		if err != nil {
			w.Fatal(err)
		}
		for range n {
			w.addPeer(func(c *Config) { c.Slots = l.number("slots", 1) })
		}
	case "up", "down":
		list := l.peersOf()
		for i, p := range list {
			for _, q := range list[i+1:] {
				if p.running && q.running && p.links[q] != (command == "up") {
					w.connect(p, q, command == "up")
				}
			}
		}
	case "submit":
		w.submit(l)
	case "crash":
		w.crash(l.peersOf()[0])
	case "start":
		w.start(l.peersOf()[0])
	case "full":
		l.peersOf()[0].room = l.number("groups", 0)
	case "rot":
		for _, p := range l.peersOf() {
			clear(p.blocks)
		}
	case "quiet":
		w.quiet = true
	case "loud":
		w.quiet = false
	default:
		return false
	}
	return true
}

func (w *script) submit(l *line) {
	p := l.peersOf()[0]
	j := testJob(w, uint64(l.number("tasks", 0)), func(s *job.Spec) {
		s.Submitter, s.Nonce[1] = p.cfg.Signer.ID(), byte(len(w.jobs))
		s.Replicas, s.Retries, s.KeepGoing = l.number("replicas", 0), l.number("retries", 3), l.has("keepgoing")
		if l.named["timeout"] != "" {
			s.Limits.Timeout = l.duration(l.named["timeout"])
		}
		if l.named["keep"] != "" {
			s.Retention = l.duration(l.named["keep"])
		}
		if mib := l.number("input", 0); mib > 0 {
			s.Input, s.Array = job.Input{Root: testCID(cid.DagCBOR, "index"), Count: s.Array, Bytes: uint64(mib) << 20}, 0
		}
		if l.named["mesh"] != "" {
			s.Mesh = l.named["mesh"]
		}
		if l.has("reduce") {
			withReduce(uint64(l.number("fanin", 0)))(s)
		}
	})
	w.jobs = append(w.jobs, j)
	p.groups[j.ID] = protocol.AllGroups(j.Manifest.Groups)
	w.step(p, Submit{j})
}

func (w *script) traffic(command string, l *line) bool {
	switch command {
	case "gossip":
		w.spread()
	case "nogossip":
		w.gossip = nil
	case "deliver":
		for n := 0; w.deliver(l.match) > 0 && l.has("all"); n++ {
			if n > 1000 {
				w.Fatal("messages without end")
			}
		}
	case "drop":
		var left []mail
		for _, m := range w.mail {
			if !l.match(m) {
				left = append(left, m)
				continue
			}
			w.print("lost: %s -> %s: %s", m.from.name, m.to.name, kindOf(m.msg))
		}
		w.mail = left
	case "again":
		for i := len(w.sent) - 1; i >= 0; i-- {
			if l.match(w.sent[i]) {
				w.mail = append(w.mail, w.sent[i])
				break
			}
		}
	case "lose":
		w.losing = append(w.losing, l.match)
	case "arrive":
		w.losing = nil
	case "fetched":
		for _, p := range l.peersOf() {
			w.bring(p, l.has("fail"))
		}
	case "probed":
		for _, p := range l.peersOf() {
			w.probed(p, l.has("dead"))
		}
	case "tick":
		w.advance(w.now + l.duration(l.words[0]))
	case "run":
		w.auto(w.now+l.duration(l.words[0]), !l.has("noend"), func() bool { return false })
	case "finish":
		w.auto(w.now+l.duration(l.words[0]), true, w.ended)
		w.print("at %s", w.clock())
	default:
		return false
	}
	return true
}

// ended tells whether no peer that runs has the last job running.
func (w *script) ended() bool {
	for _, p := range w.peers {
		if v, ok := p.m.View(w.jobs[len(w.jobs)-1].ID); p.running && ok && v.State == protocol.JobRunning {
			return false
		}
	}
	return true
}

func (w *script) work(command string, l *line) bool {
	orders := map[string]protocol.Verb{"cancel": protocol.VerbCancel, "remove": protocol.VerbRemove, "retry": protocol.VerbRetry, "pause": protocol.VerbPause, "resume": protocol.VerbResume}
	if verb, ok := orders[command]; ok {
		w.count["order"]++
		rec := signed(w, insecure.SignAs(testOwner), &protocol.Control{Job: w.jobs[0].ID, Sequence: uint64(w.count["order"]), Verb: verb})
		w.step(l.peersOf()[0], Ordered{*rec})
		return true
	}
	p := l.peersOf()[0]
	var end Ended
	switch command {
	case "end":
		end.Outcome = OutcomeDone
	case "fail":
		end = Ended{Outcome: OutcomeFailed, Reason: protocol.ReasonExit, Exit: 3}
		if l.has("time") {
			end.Reason, end.Exit = protocol.ReasonTimeout, 0
		}
	case "release":
		end.Outcome = OutcomeReleased
		if l.has("missing") {
			end.Missing = testCID(cid.Raw, "a piece of the input")
		}
	case "gap":
		w.step(p, Gap{})
		return true
	case "handover":
		in := HandOver{Jobs: []protocol.JobID{w.jobs[len(w.jobs)-1].ID}}
		if l.has("none") {
			in.Jobs = nil
		}
		w.step(p, in)
		return true
	case "damaged":
		w.step(p, Damaged{w.jobs[0].ID})
		return true
	case "died":
		var in Died
		for _, text := range strings.Split(l.named["task"], ",") {
			n, err := strconv.Atoi(text)
			if err != nil {
				w.Fatal(err)
			}
			in.Tasks = append(in.Tasks, DiedTask{Job: w.jobs[0].ID, Index: protocol.TaskIndex(n), Alone: l.has("alone")})
		}
		w.step(p, in)
		return true
	case "leave":
		w.step(p, Leaving{ForGood: l.has("forgood")})
		w.print("%s: busy %v", p.name, p.m.Busy())
		return true
	case "checkpoint":
	default:
		return false
	}
	for _, r := range p.runs {
		if int(r.Index) == l.number("task", 0) && int(r.Stage) == l.number("stage", 0) {
			if command == "checkpoint" {
				w.step(p, Checkpointed{ID: r.ID, State: checkpointFile(l.number("task", 0), l.number("number", 1))})
			} else {
				w.end(p, r.Run, end)
			}
			return true
		}
	}
	w.print("%s: does not run it", p.name)
	return true
}

// checkpointFile is the state of a task's checkpoint.
func checkpointFile(task, number int) cid.Cid {
	return testCID(cid.Raw, fmt.Sprintf("checkpoint %d of task %d", number, task))
}

func (w *script) show(command string, l *line) bool {
	switch command {
	case "state":
		for _, p := range l.peersOf() {
			w.state(p, w.jobs[0])
		}
	case "table":
		for _, p := range l.peersOf() {
			w.print("%s: knows %d open jobs", p.name, len(p.m.Announced()))
		}
	case "running":
		for _, p := range l.peersOf() {
			for _, r := range p.runs {
				w.print("%s: runs %s", p.name, w.run(r.Run))
			}
		}
	case "pending":
		for _, m := range w.mail {
			w.print("%s -> %s: %s", m.from.name, m.to.name, w.message(m.msg))
		}
	default:
		return false
	}
	return true
}
