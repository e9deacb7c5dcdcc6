package protocol

import "fmt"

func messageName(m Message) string { return fmt.Sprintf("%T", m)[len("*protocol."):] }

// validateMessage checks what SPEC.md demands of a message beside its signed parts. It
// is the same for what is sent and what is received.
func validateMessage(m Message) error {
	if m == nil {
		return fault("message", "none", ErrInvalid)
	}
	v := check{subject: messageName(m)}
	switch m := m.(type) {
	case *News:
		v.job(m.Job)
		v.records(m.Job, m.Records)
	case *Digest:
		v.job(m.Job)
	case *JobsRequest:
	case *Jobs:
		v.that(len(m.Announcements) <= MaxJobs, "too many announcements")
	case *WorkRequest:
		v.job(m.Job)
	case *WorkAnswer:
		v.job(m.Job)
		v.hints(m.Job, m.Hints)
		v.open(m.Job, m.Open)
		v.that(m.State >= JobRunning && m.State <= JobCancelled, "unknown state of the job")
	case *Bid:
		v.job(m.Job)
		v.sequence(m.ID)
		v.part(m.Job, m.Stage)
	case *Grant:
		v.job(m.Job)
		v.sequence(m.Bid)
		v.grant(m)
	case *Refusal:
		v.job(m.Job)
		v.sequence(m.Bid)
		v.hints(m.Job, m.Hints)
	case *Beat:
		v.job(m.Job)
		v.sequence(m.Sequence)
		v.work(m.Job, m.Work)
		v.text(m.Trouble)
	case *KeepRequest:
		v.job(m.Job)
	case *KeepAnswer:
		v.job(m.Job)
		v.text(m.Reason)
	case *ReceiptRequest:
		v.stage(m.StageRef)
		v.life(m.Life)
		v.block(m.Range)
		v.that(ValidCID(m.Page), "page is no chunk")
		v.that(len(m.Bytes) <= MaxPage, "page over the limit")
	case *ReceiptAnswer:
		v.receiptAnswer(m)
	case *Stored:
		v.job(m.Job)
		v.that(len(m.Pages) <= MaxStored, "too many pages")
		for _, p := range m.Pages {
			v.that(ValidCID(p), "page is no chunk")
		}
	case *Suspect:
		v.job(m.Job)
		v.that(ValidPeer(m.Member), "member is no Ed25519 peer")
	case *Opinion:
		v.job(m.Job)
		v.that(ValidPeer(m.Member), "member is no Ed25519 peer")
	default:
		v.lateMessage(m)
	}
	return v.err
}

// lateMessage goes on for the kinds that validateMessage has no room for.
func (v *check) lateMessage(m Message) {
	switch m := m.(type) {
	case *Backup:
		v.job(m.Job)
		v.sequence(m.Bid)
		v.part(m.Job, m.Stage)
		v.life(m.Life)
		v.task(m.Task)
	case *Replicate:
		v.job(m.Job)
		v.that(ValidCID(m.Root), "root is no chunk")
	case *Acknowledge:
		v.job(m.Job)
	case *Compare:
		v.job(m.Job)
		v.compare(m)
	}
}

// part checks a stage inside a message, which has the job once for all of them.
func (c *check) part(job JobID, s StageRef) {
	c.that(s.Job == job, "a stage of another job")
	c.stage(s)
}

func (c *check) records(job JobID, records []Record) {
	size := 0
	for i := range records {
		size += len(records[i].Raw)
		c.that(records[i].Body != nil && len(records[i].Raw) > 0, "a record that is not signed")
		c.that(records[i].Body == nil || records[i].Body.JobID() == job, "a record of another job")
	}
	c.that(size <= MaxNews, "records over MaxNews bytes")
}

func (c *check) grant(m *Grant) {
	c.that(len(m.Segments) <= MaxGrant, "too many segments")
	c.that(len(m.Segments) > 0, "no segment")
	c.records(m.Job, m.Segments)
	for i := range m.Segments {
		s, ok := m.Segments[i].Body.(*Segment)
		c.that(ok && s.Cause == CauseGrant, "a record that is no grant")
	}
}

func (c *check) hints(job JobID, hints []Hint) {
	c.that(len(hints) <= MaxHints, "too many hints")
	for _, h := range hints {
		c.that(ValidPeer(h.Holder), "holder is no Ed25519 peer")
		c.part(job, h.Stage)
		c.sequence(h.Sequence)
	}
}

func (c *check) open(job JobID, open []Open) {
	c.that(len(open) <= MaxOpen, "too many open ranges")
	for _, o := range open {
		c.part(job, o.Stage)
		c.life(o.Life)
		c.ranges(o.Range)
		c.epoch(o.Epoch)
	}
}

func (c *check) work(job JobID, work []Work) {
	c.that(len(work) <= MaxStages, "too many stages")
	for i := range work {
		w := &work[i]
		c.part(job, w.Stage)
		c.that(len(w.Running) <= MaxRunning, "too many running tasks")
		for _, t := range w.Running {
			c.task(t)
		}
		c.that(len(w.Held) <= MaxHeld, "too many held ranges")
		for _, h := range w.Held {
			c.life(h.Life)
			c.ranges(h.Range)
			c.epoch(h.Epoch)
		}
	}
}

func (c *check) receiptAnswer(m *ReceiptAnswer) {
	c.job(m.Job)
	c.that(ValidCID(m.Page), "page is no chunk")
	c.text(m.Reason)
	if r := m.Receipt; r != nil {
		c.that(len(r.Raw) > 0, "a receipt that is not signed")
		c.that(r.Job == m.Job && r.Page == m.Page, "a receipt for something else")
	}
}
