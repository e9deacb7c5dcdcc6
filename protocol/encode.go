package protocol

import (
	"fmt"

	"github.com/compute-mesh/mesh/protocol/pb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// The fields of SwarmMessage: which message a frame is.
const (
	fieldNews protowire.Number = iota + 1
	fieldDigest
	fieldJobsRequest
	fieldJobs
	fieldWorkRequest
	fieldWorkAnswer
	fieldBid
	fieldGrant
	fieldRefusal
	fieldBeat
	fieldKeepRequest
	fieldKeepAnswer
	fieldReceiptRequest
	fieldReceiptAnswer
	fieldStored
	fieldSuspect
	fieldOpinion
	fieldBackup
	fieldReplicate
	fieldAcknowledge
	fieldCompare
)

// lastField is the highest that this version knows.
const lastField = fieldCompare

// EncodeMessage gives the frame of a message. It refuses what DecodeMessage would
// refuse, signatures apart: records go out as they were signed.
func EncodeMessage(m Message) ([]byte, error) {
	if err := validateMessage(m); err != nil {
		return nil, err
	}
	field, body := messageToWire(m)
	size := proto.Size(body)
	if size > messageLimit(field) {
		return nil, fault(messageName(m), fmt.Sprintf("%d bytes, at most %d", size, messageLimit(field)), ErrSize)
	}
	b := make([]byte, 0, protowire.SizeTag(field)+protowire.SizeBytes(size))
	b = protowire.AppendTag(b, field, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	b, err := proto.MarshalOptions{Deterministic: true, UseCachedSize: true}.MarshalAppend(b, body)
	if err != nil {
		return nil, fault(messageName(m), err.Error(), ErrInvalid)
	}
	return b, nil
}

func messageToWire(m Message) (protowire.Number, proto.Message) {
	switch m := m.(type) {
	case *News:
		return fieldNews, &pb.News{Job: []byte(m.Job), Records: rawRecords(m.Records)}
	case *Digest:
		return fieldDigest, &pb.Digest{Job: []byte(m.Job), State: hashToWire(m.State), Want: m.Want}
	case *JobsRequest:
		return fieldJobsRequest, &pb.JobsRequest{}
	case *Jobs:
		raw := make([][]byte, len(m.Announcements))
		for i := range m.Announcements {
			raw[i] = m.Announcements[i].Raw
		}
		return fieldJobs, &pb.Jobs{Announcements: raw}
	case *WorkRequest:
		return fieldWorkRequest, &pb.WorkRequest{Job: []byte(m.Job), Known: hashToWire(m.Known)}
	case *WorkAnswer:
		return fieldWorkAnswer, workAnswerToWire(m)
	case *Bid:
		return fieldBid, &pb.Bid{Job: []byte(m.Job), Id: sequenceToWire(m.ID), Slots: m.Slots, Rate: uint64(m.Rate),
			Memory: m.Memory, Groups: uint64(m.Groups), Stage: stageToWire(m.Stage), Drain: m.Drain}
	case *Grant:
		return fieldGrant, &pb.Grant{Job: []byte(m.Job), Bid: sequenceToWire(m.Bid), Segments: rawRecords(m.Segments), Left: m.Left}
	case *Refusal:
		return fieldRefusal, &pb.Refusal{Job: []byte(m.Job), Bid: sequenceToWire(m.Bid), Hints: hintsToWire(m.Hints)}
	case *Beat:
		return fieldBeat, beatToWire(m)
	case *KeepRequest:
		return fieldKeepRequest, &pb.KeepRequest{Job: []byte(m.Job), Groups: uint64(m.Groups), Leaving: m.Leaving}
	case *KeepAnswer:
		return fieldKeepAnswer, &pb.KeepAnswer{Job: []byte(m.Job), Accepted: m.Accepted, Reason: m.Reason, Holds: m.Holds, Groups: uint64(m.Groups)}
	case *ReceiptRequest:
		return fieldReceiptRequest, &pb.ReceiptRequest{Job: []byte(m.Job), Stage: stageToWire(m.StageRef), Life: uint32(m.Life),
			Lo: uint64(m.Range.Lo), Hi: uint64(m.Range.Hi), Page: cidToWire(m.Page), Bytes: m.Bytes}
	case *ReceiptAnswer:
		w := &pb.ReceiptAnswer{Job: []byte(m.Job), Page: cidToWire(m.Page), Reason: m.Reason, Members: m.Members}
		if m.Receipt != nil {
			w.Receipt = m.Receipt.Raw
		}
		return fieldReceiptAnswer, w
	case *Stored:
		pages := make([][]byte, len(m.Pages))
		for i, p := range m.Pages {
			pages[i] = p.Bytes()
		}
		return fieldStored, &pb.Stored{Job: []byte(m.Job), Pages: pages}
	case *Suspect:
		return fieldSuspect, &pb.Suspect{Job: []byte(m.Job), Member: []byte(m.Member)}
	case *Opinion:
		return fieldOpinion, &pb.Opinion{Job: []byte(m.Job), Member: []byte(m.Member), Alive: m.Alive}
	case *Backup:
		return fieldBackup, &pb.Backup{Job: []byte(m.Job), Bid: sequenceToWire(m.Bid), Stage: stageToWire(m.Stage),
			Life: uint32(m.Life), Task: uint64(m.Task)}
	case *Replicate:
		return fieldReplicate, &pb.Replicate{Job: []byte(m.Job), Root: cidToWire(m.Root)}
	case *Acknowledge:
		return fieldAcknowledge, &pb.Acknowledge{Job: []byte(m.Job), Order: hashToWire(m.Order)}
	case *Compare:
		return fieldCompare, compareToWire(m)
	}
	return 0, nil
}

func rawRecords(records []Record) [][]byte {
	raw := make([][]byte, len(records))
	for i := range records {
		raw[i] = records[i].Raw
	}
	return raw
}

// stageToWire leaves the job out: the message around it has it.
func stageToWire(s StageRef) *pb.StageKey {
	return &pb.StageKey{Stage: uint32(s.Stage), Key: hashToWire(s.Key)}
}

func workAnswerToWire(m *WorkAnswer) *pb.WorkAnswer {
	open := make([]*pb.Open, len(m.Open))
	for i, o := range m.Open {
		open[i] = &pb.Open{Stage: stageToWire(o.Stage), Life: uint32(o.Life),
			Lo: uint64(o.Range.Lo), Hi: uint64(o.Range.Hi), Epoch: uint64(o.Epoch)}
	}
	return &pb.WorkAnswer{Job: []byte(m.Job), Hints: hintsToWire(m.Hints), Open: open, Members: m.Members, State: uint32(m.State)}
}

func hintsToWire(hints []Hint) []*pb.Hint {
	w := make([]*pb.Hint, len(hints))
	for i, h := range hints {
		w[i] = &pb.Hint{Holder: []byte(h.Holder), Stage: stageToWire(h.Stage), Backlog: h.Backlog,
			Rate: uint64(h.Rate), Sequence: sequenceToWire(h.Sequence), Age: h.Age, Tail: h.Tail}
	}
	return w
}

func beatToWire(m *Beat) *pb.Beat {
	beat := &pb.Beat{Sequence: sequenceToWire(m.Sequence), Job: []byte(m.Job), Trouble: m.Trouble}
	for _, w := range m.Work {
		work := &pb.Work{Stage: stageToWire(w.Stage), Backlog: w.Backlog, Rate: uint64(w.Rate), Tail: w.Tail}
		for _, t := range w.Running {
			work.Running = append(work.Running, uint64(t))
		}
		for _, h := range w.Held {
			work.Held = append(work.Held, &pb.Held{Life: uint32(h.Life),
				Lo: uint64(h.Range.Lo), Hi: uint64(h.Range.Hi), Epoch: uint64(h.Epoch)})
		}
		beat.Work = append(beat.Work, work)
	}
	return beat
}
