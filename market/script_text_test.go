package market

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
)

// How scripts print records, messages and effects: peers by their letters, chunks and
// hashes by short names in the order in which they appear.

func (w *script) name(p protocol.PeerID) string {
	if p == "" {
		return "nobody"
	}
	if q := w.byID[p]; q != nil {
		return q.name
	}
	if p == testOwner {
		return "owner"
	}
	return "stranger"
}

func (w *script) names(list []protocol.PeerID) string {
	var out []string
	for _, p := range list {
		out = append(out, w.name(p))
	}
	if len(out) == 0 {
		return "nobody"
	}
	return strings.Join(out, ",")
}

// alias is the short name of a chunk: the letter of what it is and a number.
func (w *script) alias(letter string, c cid.Cid) string {
	if !c.Defined() {
		return "none"
	}
	k := c.KeyString()
	if w.aliases[k] == "" {
		w.count[letter]++
		w.aliases[k] = fmt.Sprint(letter, w.count[letter])
	}
	return w.aliases[k]
}

// states are the aliases of states, of which each stands in for the one before it.
func (w *script) states(letter string, list []cid.Cid) string {
	text := w.alias(letter, list[0])
	for _, c := range list[1:] {
		text += " or " + w.alias(letter, c)
	}
	return text
}

func (w *script) digestName(h protocol.Hash) string {
	k := string(h[:])
	if w.aliases[k] == "" {
		w.count["state"]++
		w.aliases[k] = fmt.Sprint("state", w.count["state"])
	}
	return w.aliases[k]
}

// at names tasks of a stage, with their life where it is not the first.
func at(s protocol.StageRef, r protocol.Range, life protocol.Life) string {
	text := fmt.Sprintf("%d%v", s.Stage, r)
	if life > 0 {
		text += fmt.Sprintf(" life %d", life)
	}
	return text
}

var causes = map[protocol.Cause]string{1: "grant", 2: "release", 3: "release for", 4: "adopt"}
var verbs = map[protocol.Verb]string{1: "cancel", 2: "remove", 3: "pause", 4: "resume", 5: "retry"}
var states = map[protocol.JobState]string{1: "running", 2: "failed", 3: "done", 4: "cancelled"}
var fetchKinds = map[FetchKind]string{1: "manifest", 2: "job", 3: "page", 4: "seal", 5: "load page", 6: "outputs"}

func (w *script) record(r *protocol.Record) string {
	by := " by " + w.name(r.Signer)
	switch b := r.Body.(type) {
	case *protocol.Control:
		return fmt.Sprintf("Control %s %d", verbs[b.Verb], b.Sequence) + by
	case *protocol.Keep:
		if b.Groups == 0 {
			return "Keep of the ledger" + by
		}
		return "Keep" + w.groupNames(b.Job, b.Groups) + by
	case *protocol.Unkeep:
		return "Unkeep" + w.groupNames(b.Job, b.Groups) + by
	case *protocol.Segment:
		text := fmt.Sprintf("Segment %s epoch %d %s", at(b.StageRef, b.Range, b.Life), b.Epoch, causes[b.Cause])
		if b.Replaced != "" {
			text += fmt.Sprintf(" %s->%s", w.name(b.Replaced), w.name(b.Holder))
		}
		return text + by
	case *protocol.Done:
		var receipts []protocol.PeerID
		for i := range b.Receipts {
			receipts = append(receipts, b.Receipts[i].Signer)
		}
		return fmt.Sprintf("Done %s %s receipts %s", at(b.StageRef, b.Range, b.Life), w.alias("page", b.Page), w.names(receipts)) + by
	case *protocol.Failed:
		return fmt.Sprintf("Failed %d/%d generation %d attempt %d reason %d exit %d", b.Stage, b.Task, b.Generation, b.Attempt, b.Reason, b.Exit) + by
	case *protocol.Checkpoint:
		return fmt.Sprintf("Checkpoint %d/%d epoch %d number %d %s", b.Stage, b.Task, b.Epoch, b.Sequence, w.states("checkpoint", b.States())) + by
	case *protocol.Seal:
		return fmt.Sprintf("Seal %d level %d number %d %s", b.Stage, b.Level, b.Number, w.alias("root", b.Root)) + by
	}
	return fmt.Sprintf("%T", r.Body) + by
}

func (w *script) recordList(list []protocol.Record) string {
	var out []string
	for i := range list {
		out = append(out, w.record(&list[i]))
	}
	return strings.Join(out, "; ")
}

func (w *script) hints(list []protocol.Hint) string {
	text := ""
	for _, h := range list {
		text += fmt.Sprintf(" hint %s stage %d backlog %d rate %d", w.name(h.Holder), h.Stage.Stage, h.Backlog, h.Rate)
	}
	return text
}

func (w *script) message(m protocol.Message) string {
	kind := strings.TrimPrefix(fmt.Sprintf("%T", m), "*protocol.")
	switch m := m.(type) {
	case *protocol.News:
		return kind + " {" + w.recordList(m.Records) + "}"
	case *protocol.Digest:
		if m.Want {
			return kind + " " + w.digestName(m.State) + " want"
		}
		return kind + " " + w.digestName(m.State)
	case *protocol.Jobs:
		return fmt.Sprintf("%s %d", kind, len(m.Announcements))
	case *protocol.WorkAnswer:
		text := fmt.Sprintf("%s %s members %d", kind, states[m.State], m.Members) + w.hints(m.Hints)
		for _, o := range m.Open {
			text += fmt.Sprintf(" open %s epoch %d", at(o.Stage, o.Range, o.Life), o.Epoch)
		}
		return text
	case *protocol.Bid:
		return fmt.Sprintf("%s %d stage %d slots %d rate %d", kind, m.ID.Counter, m.Stage.Stage, m.Slots, m.Rate)
	case *protocol.Grant:
		return fmt.Sprintf("%s of %d {%s}", kind, m.Bid.Counter, w.recordList(m.Segments))
	case *protocol.Refusal:
		return fmt.Sprintf("%s of %d", kind, m.Bid.Counter) + w.hints(m.Hints)
	case *protocol.Beat:
		text := kind
		for _, k := range m.Work {
			text += fmt.Sprintf(" stage %d running %v backlog %d rate %d holds", k.Stage.Stage, k.Running, k.Backlog, k.Rate)
			for _, h := range k.Held {
				text += fmt.Sprintf(" %v@%d", h.Range, h.Epoch)
			}
		}
		return text
	case *protocol.KeepRequest:
		return kind + w.groupNames(m.Job, m.Groups)
	case *protocol.KeepAnswer:
		if m.Holds {
			return kind + " accepted" + w.groupNames(m.Job, m.Groups)
		}
		if m.Accepted {
			return kind + " accepted"
		}
		return kind + " refused: " + m.Reason
	case *protocol.ReceiptRequest:
		return fmt.Sprintf("%s %s %s", kind, at(m.StageRef, m.Range, m.Life), w.alias("page", m.Page))
	case *protocol.ReceiptAnswer:
		if m.Receipt == nil {
			return fmt.Sprintf("%s %s refused: %s", kind, w.alias("page", m.Page), m.Reason)
		}
		return fmt.Sprintf("%s %s", kind, w.alias("page", m.Page))
	case *protocol.Stored:
		text := kind
		for _, c := range m.Pages {
			text += " " + w.alias("page", c)
		}
		return text
	case *protocol.Backup:
		return fmt.Sprintf("%s of %d task %d/%d", kind, m.Bid.Counter, m.Stage.Stage, m.Task)
	case *protocol.Replicate:
		return kind + " " + w.alias("checkpoint", m.Root)
	case *protocol.Suspect:
		return kind + " " + w.name(m.Member)
	case *protocol.Opinion:
		return fmt.Sprintf("%s %s alive %v", kind, w.name(m.Member), m.Alive)
	}
	return kind
}

// effects prints what a machine owes the world. Blocks are named by what uses them.
func (w *script) effects(p *scriptPeer, e *Effects) {
	for _, entry := range e.Persist {
		if entry.Kind == EntryJob {
			w.print("%s: persist job", p.name)
		} else if entry.Kind == EntryFinal {
			w.print("%s: persist the final state", p.name)
		} else if rec, err := p.cfg.Codec.OpenRecord(entry.Data); err != nil {
			w.print("%s: persist what can't be read: %v", p.name, err)
		} else {
			w.print("%s: persist %s", p.name, w.record(&rec))
		}
	}
	if len(e.Blocks) > 0 || e.Sync {
		w.print("%s: store %d blocks, sync %v", p.name, len(e.Blocks), e.Sync)
	}
	for _, m := range e.Send {
		w.print("%s -> %s: %s", p.name, w.name(m.To), w.message(m.Message))
	}
	for _, a := range e.Announce {
		var keepers []protocol.PeerID
		for _, k := range a.Announcement.Keepers {
			keepers = append(keepers, k.Peer)
		}
		w.print("%s: announce %d tasks, keepers %s", p.name, a.Announcement.Tasks, w.names(keepers))
	}
	for _, r := range e.Run {
		w.print("%s: run %s", p.name, w.run(r))
	}
	for _, id := range e.Stop {
		w.print("%s: stop %s", p.name, w.run(p.runOf(id)))
	}
	for _, f := range e.Fetch {
		w.print("%s: fetch %s", p.name, w.fetch(f))
	}
	for _, q := range e.Probe {
		w.print("%s: probe %s", p.name, w.name(q))
	}
	for _, d := range e.Drop {
		if d.Root.Defined() {
			w.print("%s: drop %s", p.name, w.alias("checkpoint", d.Root))
		} else if d.Groups != 0 {
			p.groups[d.Job] &^= d.Groups
			w.print("%s: drop%s", p.name, w.groupNames(d.Job, d.Groups))
		} else {
			delete(p.groups, d.Job)
			w.print("%s: drop all chunks of the job", p.name)
		}
	}
}

func (w *script) run(r Run) string {
	text := fmt.Sprintf("%d/%d", r.Stage, r.Index)
	for _, c := range r.Sources {
		text += " of " + w.alias("root", c)
	}
	if len(r.States) > 0 {
		text += " from " + w.states("checkpoint", r.States)
	}
	if r.Alone {
		text += " alone"
	}
	return text
}

func (w *script) fetch(f Fetch) string {
	text := fetchKinds[f.Kind]
	switch f.Kind {
	case FetchPage, LoadPage:
		text += " " + w.alias("page", f.Root)
	case FetchSeal:
		text += " " + w.alias("root", f.Root)
	case FetchJob:
		text += w.groupNames(f.Job, f.Groups)
	}
	return text + " from " + w.names(f.From)
}

// groupNames lists chunk groups, of a job that has more than one.
func (w *script) groupNames(id protocol.JobID, groups protocol.GroupSet) string {
	text := ""
	for _, j := range w.jobs {
		if j.ID == id && j.Manifest.Groups > 1 {
			each(groups, func(g int) { text += fmt.Sprintf(",%d", g) })
		}
	}
	if text == "" {
		return ""
	}
	return " groups " + text[1:]
}

// state prints a peer's view of the job and its ledger.
func (w *script) state(p *scriptPeer, j *job.Signed) {
	v, ok := p.m.View(j.ID)
	if !ok {
		w.print("%s: knows no such job", p.name)
		return
	}
	role := "member"
	if v.Keeper {
		role = "keeper"
	}
	w.print("%s: %s, %s %s, accepted %v, keepers %s", p.name, role, states[v.State], v.Reason, v.Accepted, w.sorted(v.Keepers))
	if j.Manifest.Groups > 1 {
		w.print("  keeps%s; of every group at least %d copies, input with %s", w.groupNames(j.ID, v.Keeps), v.Copies, w.sorted(v.Spread))
	}
	for i, s := range v.Stages {
		if !s.Open {
			w.print("  stage %d: not open", i)
			continue
		}
		w.print("  stage %d: %d tasks, %d done, %d running, %d held, %d failed, top %s", i, s.Tasks, s.Done, s.Running, s.Held, s.Failed, w.alias("root", s.Top))
		st := p.m.swarms[j.ID].ledger.stages[i]
		st.each(st.all(), func(r protocol.Range, c *cell) bool {
			switch {
			case c.done != nil:
				w.print("    %v %s", r, w.record(c.done))
			default:
				w.print("    %v holder %s epoch %d, %d failures", r, w.name(st.holder(c)), c.epoch(), len(c.failed.all()))
			}
			return true
		})
	}
	if len(v.Stopped) > 0 {
		w.print("  stopped: %s", w.sorted(v.Stopped))
	}
	shares := ""
	for _, s := range v.Shares {
		shares += fmt.Sprintf(" %s %d", w.name(s.Peer), s.Tasks)
	}
	if shares != "" {
		w.print("  results by peer:%s", shares)
	}
}

// sorted is names in the order of their letters.
func (w *script) sorted(list []protocol.PeerID) string {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b protocol.PeerID) int { return strings.Compare(w.name(a), w.name(b)) })
	return w.names(list)
}

func (w *script) clock() string { return fmt.Sprintf("%.3fs", w.now.Round(time.Millisecond).Seconds()) }
