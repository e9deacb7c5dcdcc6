package protocol

import (
	"strconv"

	"google.golang.org/protobuf/proto"
)

// MaxKind is the highest kind that a record can have; higher codes are signed objects
// that are no records.
const MaxKind Kind = 127

// The payload type of a signed object is two bytes: the letter m and its code, which for
// a record is its kind.
const (
	typeLetter       = 'm'
	codeReceipt      = 128
	codeAnnouncement = 129
)

// The domains of signed objects. That of a record follows from its kind, so that a peer
// can check the signature of a kind that it does not know.
const (
	domainReceipt      = "mesh/receipt/1"
	domainAnnouncement = "mesh/announcement/1"
)

func domainRecord(k Kind) string { return "mesh/record/" + strconv.Itoa(int(k)) + "/1" }

// SignRecord makes the record of a body, which belongs to the record from then on. It
// refuses what OpenRecord would refuse.
func SignRecord(s Signer, b Body) (Record, error) {
	payload, err := encodeBody(b, s.ID())
	if err != nil {
		return Record{}, err
	}
	kind := b.Kind()
	raw, hash, err := signEnvelope(s, domainRecord(kind), []byte{typeLetter, byte(kind)}, payload)
	if err != nil {
		return Record{}, err
	}
	if len(raw) > MaxRecord {
		return Record{}, fault(kind.String(), "over MaxRecord when signed", ErrSize)
	}
	return Record{Raw: raw, Hash: hash, Signer: s.ID(), Body: b}, nil
}

// OpenRecord checks a signed record with Ed25519. See Codec.OpenRecord.
func OpenRecord(raw []byte) (Record, error) { return Codec{}.OpenRecord(raw) }

// OpenRecord checks the bytes of a signed record: size, form, signature, and what
// SPEC.md demands of its kind. The record keeps raw, which belongs to it from then on.
func (c Codec) OpenRecord(raw []byte) (Record, error) {
	e, err := parseEnvelope(raw, MaxRecord)
	if err != nil {
		return Record{}, err
	}
	if len(e.kind) != 2 || e.kind[0] != typeLetter || e.kind[1] == 0 || Kind(e.kind[1]) > MaxKind {
		return Record{}, fault("record", "its payload type is no kind of record", ErrEncoding)
	}
	kind := Kind(e.kind[1])
	if err := c.verify(&e, domainRecord(kind)); err != nil {
		return Record{}, err
	}
	body, err := c.decodeBody(kind, e.payload, e.signer)
	if err != nil {
		return Record{}, err
	}
	return Record{Raw: raw, Hash: e.hash, Signer: e.signer, Body: body}, nil
}

// SignReceipt makes a keeper's receipt. It refuses what OpenReceipt would refuse.
func SignReceipt(s Signer, r Receipt) (SignedReceipt, error) {
	if err := r.validate(s.ID()); err != nil {
		return SignedReceipt{}, err
	}
	payload, err := marshal("receipt", receiptToWire(&r))
	if err != nil {
		return SignedReceipt{}, err
	}
	raw, _, err := signEnvelope(s, domainReceipt, []byte{typeLetter, codeReceipt}, payload)
	if err != nil {
		return SignedReceipt{}, err
	}
	if len(raw) > MaxReceipt {
		return SignedReceipt{}, fault("receipt", "over MaxReceipt when signed", ErrSize)
	}
	return SignedReceipt{Raw: raw, Signer: s.ID(), Receipt: r}, nil
}

// OpenReceipt checks a signed receipt with Ed25519. See Codec.OpenReceipt.
func OpenReceipt(raw []byte) (SignedReceipt, error) { return Codec{}.OpenReceipt(raw) }

// OpenReceipt checks the bytes of a signed receipt, which belong to it from then on.
func (c Codec) OpenReceipt(raw []byte) (SignedReceipt, error) {
	e, err := c.openTyped(raw, "receipt", domainReceipt, codeReceipt, MaxReceipt)
	if err != nil {
		return SignedReceipt{}, err
	}
	r, err := decodeReceipt(e.payload)
	if err != nil {
		return SignedReceipt{}, err
	}
	if err := r.validate(e.signer); err != nil {
		return SignedReceipt{}, err
	}
	return SignedReceipt{Raw: raw, Signer: e.signer, Receipt: r}, nil
}

// openTyped opens an envelope whose payload type must have the code.
func (c Codec) openTyped(raw []byte, subject, domain string, code byte, limit int) (envelope, error) {
	e, err := parseEnvelope(raw, limit)
	if err != nil {
		return envelope{}, err
	}
	if len(e.kind) != 2 || e.kind[0] != typeLetter || e.kind[1] != code {
		return envelope{}, fault(subject, "the envelope is of another type", ErrEncoding)
	}
	return e, c.verify(&e, domain)
}

// marshal is deterministic for one version of this code, which is enough: what is signed
// or hashed is kept as bytes and never encoded again.
func marshal(subject string, m proto.Message) ([]byte, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fault(subject, err.Error(), ErrInvalid)
	}
	return b, nil
}

func unmarshal(subject string, b []byte, m proto.Message) error {
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, m); err != nil {
		return fault(subject, err.Error(), ErrEncoding)
	}
	return nil
}

func (k Kind) String() string {
	names := [...]string{"", "control", "keep", "unkeep", "segment", "done", "failed", "checkpoint", "seal", "reopen"}
	if k >= KindControl && k <= KindReopen {
		return names[k]
	}
	return "kind " + strconv.Itoa(int(k))
}
