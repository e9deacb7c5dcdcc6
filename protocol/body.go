package protocol

import (
	"fmt"
	"math"

	"github.com/compute-mesh/mesh/protocol/pb"
	"github.com/ipfs/go-cid"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// encodeBody gives the payload of a valid body.
func encodeBody(b Body, signer PeerID) ([]byte, error) {
	r, ok := b.(rules)
	if !ok {
		return nil, fault(fmt.Sprintf("body %T", b), "no kind of record", ErrInvalid)
	}
	if err := r.validate(signer); err != nil {
		return nil, err
	}
	m := bodyToWire(b)
	if m == nil {
		return nil, fault(b.Kind().String(), "of a later version, only its own can be forwarded", ErrInvalid)
	}
	return marshal(b.Kind().String(), m)
}

func bodyToWire(b Body) proto.Message {
	switch b := b.(type) {
	case *Control:
		return &pb.Control{Job: []byte(b.Job), Sequence: b.Sequence, Verb: uint32(b.Verb)}
	case *Keep:
		return &pb.Keep{Job: []byte(b.Job), Groups: uint64(b.Groups), Sequence: sequenceToWire(b.Sequence)}
	case *Unkeep:
		return &pb.Unkeep{Job: []byte(b.Job), Keep: hashToWire(b.Keep), Groups: uint64(b.Groups), Sequence: sequenceToWire(b.Sequence)}
	case *Segment:
		return &pb.Segment{Job: []byte(b.Job), Stage: uint32(b.Stage), Key: hashToWire(b.Key), Life: uint32(b.Life),
			Lo: uint64(b.Range.Lo), Hi: uint64(b.Range.Hi), Epoch: uint64(b.Epoch), Holder: []byte(b.Holder),
			Cause: uint32(b.Cause), Replaced: []byte(b.Replaced), Keep: hashToWire(b.Keep)}
	case *Done:
		receipts := make([][]byte, len(b.Receipts))
		for i := range b.Receipts {
			receipts[i] = b.Receipts[i].Raw
		}
		return &pb.Done{Job: []byte(b.Job), Stage: uint32(b.Stage), Key: hashToWire(b.Key), Life: uint32(b.Life),
			Lo: uint64(b.Range.Lo), Hi: uint64(b.Range.Hi), Page: cidToWire(b.Page), Receipts: receipts}
	case *Failed:
		return &pb.Failed{Job: []byte(b.Job), Stage: uint32(b.Stage), Key: hashToWire(b.Key), Life: uint32(b.Life),
			Task: uint64(b.Task), Generation: uint64(b.Generation), Attempt: uint32(b.Attempt),
			Reason: uint32(b.Reason), Exit: b.Exit, Detail: b.Detail, Log: cidToWire(b.Log)}
	case *Checkpoint:
		return &pb.Checkpoint{Job: []byte(b.Job), Stage: uint32(b.Stage), Key: hashToWire(b.Key), Life: uint32(b.Life),
			Task: uint64(b.Task), Epoch: uint64(b.Epoch), Sequence: b.Sequence, State: cidToWire(b.State), Earlier: cidToWire(b.Earlier)}
	case *Seal:
		return &pb.Seal{Job: []byte(b.Job), Stage: uint32(b.Stage), Key: hashToWire(b.Key), Life: uint32(b.Life), Level: uint32(b.Level),
			Number: b.Number, Root: cidToWire(b.Root), Time: b.Time, Keep: hashToWire(b.Keep)}
	case *Reopen:
		return &pb.Reopen{Job: []byte(b.Job), Stage: uint32(b.Stage), Key: hashToWire(b.Key), Lo: uint64(b.Range.Lo),
			Hi: uint64(b.Range.Hi), Life: uint32(b.Life), Cause: uint32(b.Cause), Keep: hashToWire(b.Keep)}
	}
	return nil
}

func receiptToWire(r *Receipt) *pb.Receipt {
	return &pb.Receipt{Job: []byte(r.Job), Stage: uint32(r.Stage), Key: hashToWire(r.Key), Life: uint32(r.Life),
		Lo: uint64(r.Range.Lo), Hi: uint64(r.Range.Hi), Page: cidToWire(r.Page), Keep: hashToWire(r.Keep)}
}

func sequenceToWire(s Sequence) *pb.Sequence {
	return &pb.Sequence{Incarnation: s.Incarnation, Counter: s.Counter}
}

// hashToWire leaves "none" out.
func hashToWire(h Hash) []byte {
	if h.IsZero() {
		return nil
	}
	return h[:]
}

// cidToWire leaves cid.Undef out.
func cidToWire(c cid.Cid) []byte {
	if !c.Defined() {
		return nil
	}
	return c.Bytes()
}

// decodeBody reads and validates the payload of a record of the kind.
func (c Codec) decodeBody(kind Kind, payload []byte, signer PeerID) (Body, error) {
	body, err := c.bodyFromWire(kind, payload)
	if err != nil {
		return nil, err
	}
	return body, body.validate(signer)
}

type validBody interface {
	Body
	rules
}

func (c Codec) bodyFromWire(kind Kind, b []byte) (validBody, error) {
	r := reading{subject: kind.String()}
	var body validBody
	switch kind {
	case KindControl:
		var m pb.Control
		r.message(b, &m)
		body = &Control{Job: JobID(m.Job), Sequence: m.Sequence, Verb: Verb(r.small(m.Verb))}
	case KindKeep:
		var m pb.Keep
		r.message(b, &m)
		body = &Keep{Job: JobID(m.Job), Groups: GroupSet(m.Groups), Sequence: sequenceFromWire(m.Sequence)}
	case KindUnkeep:
		var m pb.Unkeep
		r.message(b, &m)
		body = &Unkeep{Job: JobID(m.Job), Keep: r.hash(m.Keep), Groups: GroupSet(m.Groups), Sequence: sequenceFromWire(m.Sequence)}
	case KindSegment:
		var m pb.Segment
		r.message(b, &m)
		body = &Segment{StageRef: r.stage(m.Job, m.Stage, m.Key), Life: Life(m.Life), Range: rangeOf(m.Lo, m.Hi),
			Epoch: Epoch(m.Epoch), Holder: PeerID(m.Holder), Cause: Cause(r.small(m.Cause)),
			Replaced: PeerID(m.Replaced), Keep: r.hash(m.Keep)}
	case KindDone:
		return c.doneFromWire(b)
	case KindFailed:
		var m pb.Failed
		r.message(b, &m)
		body = &Failed{StageRef: r.stage(m.Job, m.Stage, m.Key), Life: Life(m.Life), Task: TaskIndex(m.Task),
			Generation: Generation(m.Generation), Attempt: Attempt(m.Attempt), Reason: Reason(r.small(m.Reason)),
			Exit: m.Exit, Detail: m.Detail, Log: r.cid(m.Log)}
	case KindCheckpoint:
		var m pb.Checkpoint
		r.message(b, &m)
		body = &Checkpoint{StageRef: r.stage(m.Job, m.Stage, m.Key), Life: Life(m.Life), Task: TaskIndex(m.Task),
			Epoch: Epoch(m.Epoch), Sequence: m.Sequence, State: r.cid(m.State), Earlier: r.cid(m.Earlier)}
	case KindSeal:
		var m pb.Seal
		r.message(b, &m)
		body = &Seal{StageRef: r.stage(m.Job, m.Stage, m.Key), Life: Life(m.Life), Level: r.small(m.Level), Number: m.Number,
			Root: r.cid(m.Root), Time: m.Time, Keep: r.hash(m.Keep)}
	case KindReopen:
		var m pb.Reopen
		r.message(b, &m)
		body = &Reopen{StageRef: r.stage(m.Job, m.Stage, m.Key), Range: rangeOf(m.Lo, m.Hi), Life: Life(m.Life),
			Cause: ReopenCause(r.small(m.Cause)), Keep: r.hash(m.Keep)}
	default:
		return &Opaque{Job: r.firstField(b), Code: kind}, r.err
	}
	return body, r.err
}

func (c Codec) doneFromWire(b []byte) (*Done, error) {
	r := reading{subject: "done"}
	var m pb.Done
	r.message(b, &m)
	d := &Done{StageRef: r.stage(m.Job, m.Stage, m.Key), Life: Life(m.Life), Range: rangeOf(m.Lo, m.Hi), Page: r.cid(m.Page)}
	if len(m.Receipts) > MaxReceipts {
		r.fail("too many receipts", ErrSize)
	}
	if r.err != nil {
		return nil, r.err
	}
	for i, raw := range m.Receipts {
		receipt, err := c.OpenReceipt(raw)
		if err != nil {
			return nil, fmt.Errorf("protocol: done: receipt %d: %w", i, err)
		}
		d.Receipts = append(d.Receipts, receipt)
	}
	return d, nil
}

func decodeReceipt(b []byte) (Receipt, error) {
	r := reading{subject: "receipt"}
	var m pb.Receipt
	r.message(b, &m)
	return Receipt{StageRef: r.stage(m.Job, m.Stage, m.Key), Life: Life(m.Life), Range: rangeOf(m.Lo, m.Hi),
		Page: r.cid(m.Page), Keep: r.hash(m.Keep)}, r.err
}

// reading turns wire types into ours and notes the first that has not the form.
type reading struct {
	subject string
	err     error
}

func (r *reading) fail(what string, kind error) {
	if r.err == nil {
		r.err = fault(r.subject, what, kind)
	}
}

func (r *reading) message(b []byte, m proto.Message) {
	if err := unmarshal(r.subject, b, m); err != nil && r.err == nil {
		r.err = err
	}
}

// small is for levels and enumerations, whose numbers are bytes.
func (r *reading) small(n uint32) uint8 {
	if n > math.MaxUint8 {
		r.fail("a number over 255 where a byte is due", ErrInvalid)
	}
	return uint8(n)
}

// hash takes nothing for "none".
func (r *reading) hash(b []byte) (h Hash) {
	if len(b) != 0 && copy(h[:], b) != len(h) || len(b) > len(h) {
		r.fail("a hash that is not 32 bytes", ErrEncoding)
	}
	return h
}

// cid takes nothing for cid.Undef.
func (r *reading) cid(b []byte) cid.Cid {
	if len(b) == 0 {
		return cid.Undef
	}
	if !validCID(string(b)) {
		r.fail("a CID that is not version 1, sha2-256, and raw, dag-pb or dag-cbor", ErrEncoding)
		return cid.Undef
	}
	c, err := cid.Cast(b)
	if err != nil {
		r.fail(err.Error(), ErrEncoding)
	}
	return c
}

func (r *reading) stage(job []byte, stage uint32, key []byte) StageRef {
	return StageRef{Job: JobID(job), Stage: StageIndex(stage), Key: r.hash(key)}
}

// firstField is the job of a record of any kind: field 1 of its payload.
func (r *reading) firstField(b []byte) JobID {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			break
		}
		b = b[n:]
		if number == 1 && kind == protowire.BytesType {
			if job, n := protowire.ConsumeBytes(b); n >= 0 {
				return JobID(job)
			}
			break
		}
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			break
		}
		b = b[n:]
	}
	r.fail("no job", ErrEncoding)
	return ""
}

func rangeOf(lo, hi uint64) Range { return Range{TaskIndex(lo), TaskIndex(hi)} }

func sequenceFromWire(m *pb.Sequence) Sequence {
	return Sequence{Incarnation: m.GetIncarnation(), Counter: m.GetCounter()}
}
