package market

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/protocol"
)

// script is a few machines whose every message, fetch and run waits until the script
// says what becomes of it.
type script struct {
	*testing.T
	out     strings.Builder
	quiet   bool
	now     time.Duration
	peers   []*scriptPeer
	byID    map[protocol.PeerID]*scriptPeer
	mail    []mail
	sent    []mail            // ever
	losing  []func(mail) bool // what never arrives
	gossip  []rumour
	jobs    []*job.Signed
	aliases map[string]string
	count   map[string]int
	stuck   bool // an operation that never came to rest
}

type mail struct {
	from, to *scriptPeer
	msg      protocol.Message
}

type rumour struct {
	from *scriptPeer
	a    protocol.Announcement
}

type scriptPeer struct {
	name    string
	m       *Machine
	cfg     Config
	running bool
	journal []Entry
	blocks  map[string][]byte
	runs    []scriptRun
	fetches []Fetch
	probes  []protocol.PeerID
	wake    time.Duration
	links   map[*scriptPeer]bool
	room    int                                  // for groups of jobs; -1: for all
	groups  map[protocol.JobID]protocol.GroupSet // that are here
}

type scriptRun struct {
	Run
	since time.Duration // when it got a slot; -1: it waits for one
}

func newScript(t *testing.T) *script {
	return &script{T: t, byID: map[protocol.PeerID]*scriptPeer{}, aliases: map[string]string{}, count: map[string]int{}}
}

func (w *script) print(format string, args ...any) {
	if !w.quiet {
		fmt.Fprintf(&w.out, format+"\n", args...)
	}
}

func (p *scriptPeer) runOf(id RunID) Run {
	for _, r := range p.runs {
		if r.ID == id {
			return r.Run
		}
	}
	return Run{}
}

// addPeer makes the next peer, with change to its configuration.
func (w *script) addPeer(change func(*Config)) {
	n := len(w.peers)
	p := &scriptPeer{name: string(rune('a' + n)), cfg: testConfig(n), blocks: map[string][]byte{}, links: map[*scriptPeer]bool{}, room: -1, groups: map[protocol.JobID]protocol.GroupSet{}}
	p.cfg.Slots = 1
	change(&p.cfg)
	w.peers = append(w.peers, p)
	w.byID[p.cfg.Signer.ID()] = p
	w.start(p)
}

func (w *script) start(p *scriptPeer) {
	m, err := New(p.cfg, instant(w.now), p.journal)
	if err != nil {
		w.print("%s: does not start: %v", p.name, err)
		return
	}
	p.m, p.running = m, true
	w.carry(p)
}

// crash loses everything but the journal and the blocks.
func (w *script) crash(p *scriptPeer) {
	p.running, p.runs, p.fetches, p.probes, p.wake = false, nil, nil, nil, 0
	w.mail = slices.DeleteFunc(w.mail, func(m mail) bool { return m.from == p || m.to == p })
	for _, q := range w.peers {
		if p.links[q] {
			w.connect(p, q, false)
		}
	}
}

func (w *script) connect(p, q *scriptPeer, up bool) {
	p.links[q], q.links[p] = up, up
	for _, pair := range [][2]*scriptPeer{{p, q}, {q, p}} {
		var in Input = PeerUp{pair[1].cfg.Signer.ID()}
		if !up {
			in = PeerDown{pair[1].cfg.Signer.ID()}
		}
		w.step(pair[0], in)
	}
}

func (w *script) step(p *scriptPeer, in Input) {
	if !p.running {
		return
	}
	if err := p.m.Step(instant(w.now), in); err != nil {
		w.print("%s: refuses: %v", p.name, err)
	}
	w.carry(p)
}

// carry does the driver's duties, as far as they need no other peer.
func (w *script) carry(p *scriptPeer) {
	for range 100 {
		e := p.m.Ready()
		p.wake = e.Wake
		if e.Empty() {
			return
		}
		p.runs = append(p.runs, waiting(e.Run)...)
		w.effects(p, &e)
		p.journal = append(p.journal, e.Persist...)
		for _, b := range e.Blocks {
			p.blocks[key(b.CID)] = b.Data
		}
		for _, s := range e.Send {
			if q := w.byID[s.To]; q != nil && q.running && p.links[q] {
				w.post(mail{p, q, s.Message})
			}
		}
		p.fetches = append(p.fetches, e.Fetch...)
		p.probes = append(p.probes, e.Probe...)
		p.m.Advance(e)
		for _, id := range e.Stop {
			p.runs = slices.DeleteFunc(p.runs, func(r scriptRun) bool { return r.ID == id })
			if err := p.m.Step(instant(w.now), Ended{ID: id, Outcome: OutcomeStopped}); err != nil {
				w.print("%s: refuses: %v", p.name, err)
			}
		}
		for _, a := range e.Announce {
			signed, err := protocol.SignAnnouncement(p.cfg.Signer, a.Announcement)
			if err != nil {
				w.Fatal(err)
			}
			w.gossip = append(w.gossip, rumour{p, signed})
			if err := p.m.Step(instant(w.now), Announced{signed}); err != nil {
				w.print("%s: refuses: %v", p.name, err)
			}
		}
	}
	w.stuck = true
	w.print("%s: owes effects without end", p.name)
}

func (w *script) post(m mail) {
	w.sent = append(w.sent, m)
	for _, lost := range w.losing {
		if lost(m) {
			return
		}
	}
	w.mail = append(w.mail, m)
}

func waiting(list []Run) []scriptRun {
	var out []scriptRun
	for _, r := range list {
		out = append(out, scriptRun{r, -1})
	}
	return out
}

// deliver hands over the messages that are on their way now and match.
func (w *script) deliver(match func(mail) bool) int {
	var now, later []mail
	for _, m := range w.mail {
		if match(m) {
			now = append(now, m)
		} else {
			later = append(later, m)
		}
	}
	w.mail = later
	for _, m := range now {
		if !m.to.running || !m.from.links[m.to] {
			continue
		}
		w.print("%s <- %s: %s", m.to.name, m.from.name, kindOf(m.msg))
		w.step(m.to, Received{m.from.cfg.Signer.ID(), m.msg})
	}
	return len(now)
}

func kindOf(m protocol.Message) string { return strings.TrimPrefix(fmt.Sprintf("%T", m), "*protocol.") }

// spread brings announcements to who is connected to their sender.
func (w *script) spread() int {
	list := w.gossip
	w.gossip = nil
	for _, g := range list {
		for _, q := range w.peers {
			if q != g.from && q.running && g.from.links[q] {
				w.print("%s <- %s: announcement", q.name, g.from.name)
				w.step(q, Announced{g.a})
			}
		}
	}
	return len(list)
}

var errNotServed = errors.New("nobody serves it")

// bring ends the fetches under way at a peer.
func (w *script) bring(p *scriptPeer, fail bool) int {
	list := p.fetches
	p.fetches = nil
	for _, f := range list {
		got := Fetched{ID: f.ID}
		var served bool
		for _, id := range f.From {
			if q := w.byID[id]; q != nil && q.running && p.links[q] {
				served = true
			}
		}
		switch f.Kind {
		case FetchManifest:
			for _, j := range w.jobs {
				if j.ID == f.Job {
					got.Job = j
				}
			}
		case FetchJob:
			got.Groups = w.groups(p, f)
			served = served && got.Groups == f.Groups
		case FetchPage, LoadPage, FetchSeal:
			got.Data, served = w.block(p, f, served)
		}
		if fail || !served {
			got = Fetched{ID: f.ID, Err: errNotServed, Groups: got.Groups}
		}
		w.print("%s: fetched %s: %v", p.name, w.fetch(f), got.Err)
		w.step(p, got)
	}
	return len(list)
}

// groups brings the chunk groups that a peer has room for from whom it asks. What is not cut
// into groups everybody has who ran some of it.
func (w *script) groups(p *scriptPeer, f Fetch) (got protocol.GroupSet) {
	var there protocol.GroupSet
	for _, id := range f.From {
		if q := w.byID[id]; q != nil && q.running && p.links[q] {
			if there |= q.groups[f.Job]; f.Signed.Manifest.Groups == 1 {
				there = group0
			}
		}
	}
	each(f.Groups&(there|p.groups[f.Job]), func(g int) {
		if p.room < 0 || p.groups[f.Job].Len() < p.room {
			p.groups[f.Job] |= group0 << g
			got |= group0 << g
		}
	})
	return got
}

// block finds a block at the peer or at whom it asks.
func (w *script) block(p *scriptPeer, f Fetch, reachable bool) ([]byte, bool) {
	k := key(f.Root)
	if data := p.blocks[k]; data != nil {
		return data, true
	}
	for _, id := range f.From {
		if q := w.byID[id]; reachable && q != nil && q.running && p.links[q] && q.blocks[k] != nil {
			p.blocks[k] = q.blocks[k]
			return p.blocks[k], true
		}
	}
	return nil, false
}

func (w *script) probed(p *scriptPeer, lie bool) int {
	list := p.probes
	p.probes = nil
	for _, id := range list {
		q := w.byID[id]
		alive := q != nil && q.running && p.links[q] && !lie
		w.print("%s: probed %s: alive %v", p.name, w.name(id), alive)
		w.step(p, Probed{id, alive})
	}
	return len(list)
}

// end ends a run. Its result is the task's name.
func (w *script) end(p *scriptPeer, r Run, in Ended) {
	p.runs = slices.DeleteFunc(p.runs, func(o scriptRun) bool { return o.ID == r.ID })
	in.ID, in.Wall = r.ID, taskTime
	if in.Outcome == OutcomeDone {
		text := fmt.Appendf(nil, "%d/%d\n", r.Stage, r.Index)
		in.Result = protocol.Result{Stdout: protocol.Output{Size: uint64(len(text)), Inline: text}}
	}
	w.step(p, in)
}

// taskTime is how long every task takes.
const taskTime = 100 * time.Millisecond

// advance lets time pass until a moment, ticking who wants to be woken.
func (w *script) advance(to time.Duration) {
	for n := 0; ; n++ {
		var next *scriptPeer
		for _, p := range w.peers {
			if p.running && p.wake > 0 && p.wake <= to && (next == nil || p.wake < next.wake) {
				next = p
			}
		}
		if next == nil || n > 100_000 {
			break
		}
		w.now = max(w.now, next.wake)
		w.step(next, Tick{})
	}
	w.now = max(w.now, to)
}

// auto lets everything happen for a while: messages and fetches take a millisecond,
// tasks their time.
func (w *script) auto(until time.Duration, ends bool, done func() bool) {
	for w.now < until && !done() {
		n := w.deliver(func(mail) bool { return true }) + w.spread()
		for _, p := range w.peers {
			n += w.bring(p, false) + w.probed(p, false)
			for i := range p.runs {
				if r := &p.runs[i]; r.since < 0 && i < p.cfg.Slots {
					r.since = w.now
				}
			}
			for _, r := range slices.Clone(p.runs) {
				if ends && r.since >= 0 && w.now >= r.since+taskTime {
					w.end(p, r.Run, Ended{Outcome: OutcomeDone})
				}
			}
		}
		w.advance(w.now + time.Millisecond)
	}
}
