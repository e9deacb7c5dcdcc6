package protocol

import (
	"fmt"

	"github.com/compute-mesh/mesh/protocol/pb"
	"google.golang.org/protobuf/encoding/protowire"
)

// messageLimit is how many bytes a message may have beside its tag and length: what its
// own limits add up to, with room for later fields. A decoder may spend some tens of
// bytes of memory for one of input, so the limits are as tight as they can be.
func messageLimit(field protowire.Number) int {
	const (
		small = 1 << 10   // a job, a peer, a CID, a text, some numbers
		entry = 160       // a hint or an open range
		held  = 4 * 10    // four varints
		task  = 5         // a varint below 2^35
		frame = 4         // tag and length of a record in a list
		jobs  = 36 + 2    // a CID with its tag and length
		work  = small / 4 // of a Work without its lists
		part  = 80        // of a Part without its hashes: a stage's key and some numbers
	)
	switch field {
	case fieldNews:
		return small + MaxNews + MaxNews/64*frame // no record is below 64 bytes: its signature
	case fieldJobs:
		return small + MaxJobs*(MaxAnnouncement+frame)
	case fieldWorkAnswer:
		return small + (MaxHints+MaxOpen)*entry
	case fieldGrant:
		return small + MaxGrant*(MaxRecord+frame)
	case fieldRefusal:
		return small + MaxHints*entry
	case fieldBeat:
		return small + MaxStages*(work+MaxRunning*task+MaxHeld*held)
	case fieldReceiptRequest:
		return small + MaxPage
	case fieldReceiptAnswer:
		return small + MaxReceipt
	case fieldStored:
		return small + MaxStored*jobs
	case fieldCompare:
		return small + MaxParts*part + MaxCompareHashes*ShortHashSize
	}
	return small
}

// DecodeMessage reads a frame and checks signatures with Ed25519. See
// Codec.DecodeMessage.
func DecodeMessage(b []byte) (Message, error) { return Codec{}.DecodeMessage(b) }

// DecodeMessage reads a frame: the message in it with every signature checked. One bad
// record makes the whole an error that says which. It keeps no part of b.
// The error is ErrUnknownMessage for kinds of later versions.
func (c Codec) DecodeMessage(b []byte) (Message, error) {
	if len(b) > MaxMessage {
		return nil, fault("message", fmt.Sprintf("%d bytes, at most %d", len(b), MaxMessage), ErrSize)
	}
	field, body, err := splitMessage(b)
	if err != nil {
		return nil, err
	}
	if len(body) > messageLimit(field) {
		return nil, fault("message", fmt.Sprintf("kind %d of %d bytes, at most %d", field, len(body), messageLimit(field)), ErrSize)
	}
	m, err := c.messageFromWire(field, body)
	if err != nil {
		return nil, err
	}
	if err := validateMessage(m); err != nil {
		return nil, err
	}
	return m, nil
}

// splitMessage finds the one field that this version knows.
func splitMessage(b []byte) (field protowire.Number, body []byte, err error) {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return 0, nil, fault("message", "no tag", ErrEncoding)
		}
		size := protowire.ConsumeFieldValue(number, kind, b[n:])
		if size < 0 {
			return 0, nil, fault("message", "a field that is cut off", ErrEncoding)
		}
		if number <= lastField {
			if field != 0 || kind != protowire.BytesType {
				return 0, nil, fault("message", "not one message", ErrEncoding)
			}
			field = number
			body, _ = protowire.ConsumeBytes(b[n:])
		}
		b = b[n+size:]
	}
	if field == 0 {
		return 0, nil, fmt.Errorf("protocol: %w", ErrUnknownMessage)
	}
	return field, body, nil
}

func (c Codec) messageFromWire(field protowire.Number, b []byte) (Message, error) {
	switch field {
	case fieldNews, fieldJobs, fieldGrant, fieldReceiptAnswer:
		return c.signedFromWire(field, b)
	case fieldBid, fieldWorkAnswer, fieldRefusal, fieldBeat, fieldBackup:
		return workFromWire(field, b)
	}
	r := reading{subject: "message"}
	var m Message
	switch field {
	case fieldDigest:
		var w pb.Digest
		r.message(b, &w)
		m = &Digest{Job: JobID(w.Job), State: r.hash(w.State), Want: w.Want}
	case fieldJobsRequest:
		r.message(b, &pb.JobsRequest{})
		m = &JobsRequest{}
	case fieldWorkRequest:
		var w pb.WorkRequest
		r.message(b, &w)
		m = &WorkRequest{Job: JobID(w.Job), Known: r.hash(w.Known)}
	case fieldKeepRequest:
		var w pb.KeepRequest
		r.message(b, &w)
		m = &KeepRequest{Job: JobID(w.Job), Groups: GroupSet(w.Groups), Leaving: w.Leaving}
	case fieldKeepAnswer:
		var w pb.KeepAnswer
		r.message(b, &w)
		m = &KeepAnswer{Job: JobID(w.Job), Accepted: w.Accepted, Reason: w.Reason, Holds: w.Holds, Groups: GroupSet(w.Groups)}
	case fieldReceiptRequest:
		var w pb.ReceiptRequest
		r.message(b, &w)
		m = &ReceiptRequest{StageRef: r.stageOf(JobID(w.Job), w.Stage), Life: Life(w.Life),
			Range: rangeOf(w.Lo, w.Hi), Page: r.cid(w.Page), Bytes: w.Bytes}
	case fieldStored:
		var w pb.Stored
		r.message(b, &w)
		stored := &Stored{Job: JobID(w.Job)}
		for _, p := range w.Pages {
			stored.Pages = append(stored.Pages, r.cid(p))
		}
		m = stored
	case fieldSuspect:
		var w pb.Suspect
		r.message(b, &w)
		m = &Suspect{Job: JobID(w.Job), Member: PeerID(w.Member)}
	case fieldOpinion:
		var w pb.Opinion
		r.message(b, &w)
		m = &Opinion{Job: JobID(w.Job), Member: PeerID(w.Member), Alive: w.Alive}
	case fieldReplicate:
		var w pb.Replicate
		r.message(b, &w)
		m = &Replicate{Job: JobID(w.Job), Root: r.cid(w.Root)}
	case fieldAcknowledge:
		var w pb.Acknowledge
		r.message(b, &w)
		m = &Acknowledge{Job: JobID(w.Job), Order: r.hash(w.Order)}
	case fieldCompare:
		m = compareFromWire(&r, b)
	}
	return m, r.err
}

// signedFromWire reads the messages that carry signed objects.
func (c Codec) signedFromWire(field protowire.Number, b []byte) (Message, error) {
	r := reading{subject: "message"}
	var m Message
	switch field {
	case fieldNews:
		var w pb.News
		r.message(b, &w)
		m = &News{Job: JobID(w.Job), Records: c.records(&r, "news", w.Records)}
	case fieldGrant:
		var w pb.Grant
		r.message(b, &w)
		if len(w.Segments) > MaxGrant {
			r.fail("grant: too many segments", ErrSize)
		}
		m = &Grant{Job: JobID(w.Job), Bid: sequenceFromWire(w.Bid), Segments: c.records(&r, "grant", w.Segments), Left: w.Left}
	case fieldJobs:
		var w pb.Jobs
		r.message(b, &w)
		m = c.jobsFromWire(&r, w.Announcements)
	case fieldReceiptAnswer:
		var w pb.ReceiptAnswer
		r.message(b, &w)
		answer := &ReceiptAnswer{Job: JobID(w.Job), Page: r.cid(w.Page), Reason: w.Reason, Members: w.Members}
		if r.err == nil && len(w.Receipt) > 0 {
			receipt, err := c.OpenReceipt(w.Receipt)
			if err != nil {
				return nil, fmt.Errorf("protocol: receipt answer: %w", err)
			}
			answer.Receipt = &receipt
		}
		m = answer
	}
	return m, r.err
}

// records opens them in order, and none after the first that is bad.
func (c Codec) records(r *reading, subject string, raw [][]byte) []Record {
	if r.err != nil || len(raw) == 0 {
		return nil
	}
	records := make([]Record, len(raw))
	for i, b := range raw {
		var err error
		if records[i], err = c.OpenRecord(b); err != nil {
			r.err = fmt.Errorf("protocol: %s: record %d: %w", subject, i, err)
			return nil
		}
	}
	return records
}

func (c Codec) jobsFromWire(r *reading, raw [][]byte) *Jobs {
	if len(raw) > MaxJobs {
		r.fail("jobs: too many announcements", ErrSize)
	}
	m := &Jobs{}
	for i, b := range raw {
		if r.err != nil {
			return nil
		}
		a, err := c.OpenAnnouncement(b)
		if err != nil {
			r.err = fmt.Errorf("protocol: jobs: announcement %d: %w", i, err)
		}
		m.Announcements = append(m.Announcements, a)
	}
	return m
}

// workFromWire reads the messages that are about who has work.
func workFromWire(field protowire.Number, b []byte) (Message, error) {
	r := reading{subject: "message"}
	var m Message
	switch field {
	case fieldBid:
		var w pb.Bid
		r.message(b, &w)
		job := JobID(w.Job)
		m = &Bid{Job: job, ID: sequenceFromWire(w.Id), Slots: w.Slots, Rate: Rate(w.Rate), Memory: w.Memory,
			Groups: GroupSet(w.Groups), Stage: r.stageOf(job, w.Stage), Drain: w.Drain}
	case fieldWorkAnswer:
		var w pb.WorkAnswer
		r.message(b, &w)
		job := JobID(w.Job)
		answer := &WorkAnswer{Job: job, Hints: r.hints(job, w.Hints), Members: w.Members, State: JobState(r.small(w.State))}
		for _, o := range w.Open {
			answer.Open = append(answer.Open, Open{Stage: r.stageOf(job, o.Stage), Life: Life(o.Life),
				Range: rangeOf(o.Lo, o.Hi), Epoch: Epoch(o.Epoch)})
		}
		m = answer
	case fieldRefusal:
		var w pb.Refusal
		r.message(b, &w)
		job := JobID(w.Job)
		m = &Refusal{Job: job, Bid: sequenceFromWire(w.Bid), Hints: r.hints(job, w.Hints)}
	case fieldBeat:
		var w pb.Beat
		r.message(b, &w)
		beat := &Beat{Sequence: sequenceFromWire(w.Sequence), Job: JobID(w.Job), Trouble: w.Trouble}
		for _, work := range w.Work {
			beat.Work = append(beat.Work, r.work(beat.Job, work))
		}
		m = beat
	case fieldBackup:
		var w pb.Backup
		r.message(b, &w)
		job := JobID(w.Job)
		m = &Backup{Job: job, Bid: sequenceFromWire(w.Bid), Stage: r.stageOf(job, w.Stage), Life: Life(w.Life), Task: TaskIndex(w.Task)}
	}
	return m, r.err
}

func (r *reading) stageOf(job JobID, m *pb.StageKey) StageRef {
	return StageRef{Job: job, Stage: StageIndex(m.GetStage()), Key: r.hash(m.GetKey())}
}

func (r *reading) hints(job JobID, m []*pb.Hint) []Hint {
	var hints []Hint
	for _, h := range m {
		hints = append(hints, Hint{Holder: PeerID(h.Holder), Stage: r.stageOf(job, h.Stage), Backlog: h.Backlog,
			Rate: Rate(h.Rate), Sequence: sequenceFromWire(h.Sequence), Age: h.Age, Tail: h.Tail})
	}
	return hints
}

func (r *reading) work(job JobID, m *pb.Work) Work {
	w := Work{Stage: r.stageOf(job, m.Stage), Backlog: m.Backlog, Rate: Rate(m.Rate), Tail: m.Tail}
	for _, t := range m.Running {
		w.Running = append(w.Running, TaskIndex(t))
	}
	for _, h := range m.Held {
		w.Held = append(w.Held, Held{Life: Life(h.Life), Range: rangeOf(h.Lo, h.Hi), Epoch: Epoch(h.Epoch)})
	}
	return w
}
