package protocol

import (
	"github.com/compute-mesh/mesh/protocol/pb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// SignUnchecked signs a body as a peer would that does not check what it says.
func SignUnchecked(s Signer, b Body) ([]byte, error) {
	payload, err := marshal("body", bodyToWire(b))
	if err != nil {
		return nil, err
	}
	return SignEnvelope(s, domainRecord(b.Kind()), []byte{typeLetter, byte(b.Kind())}, payload)
}

// MessageLimit is the limit of the n-th kind of message.
var MessageLimit = messageLimit

// EncodeUnchecked encodes a message as a peer would that does not check what it says.
func EncodeUnchecked(m Message) []byte {
	field, body := messageToWire(m)
	b, err := proto.Marshal(body)
	if err != nil {
		panic(err)
	}
	return protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), b)
}

// EncodePageUnchecked encodes a page as a peer would that does not check what it says.
func EncodePageUnchecked(p Page) []byte {
	w := &pb.Page{Job: []byte(p.Job), Stage: uint32(p.Stage), Key: hashToWire(p.Key), Life: uint32(p.Life),
		Lo: uint64(p.Range.Lo), Hi: uint64(p.Range.Hi), Worker: []byte(p.Worker)}
	output := func(o Output) *pb.Output {
		return &pb.Output{Root: cidToWire(o.Root), Inline: o.Inline}
	}
	for _, r := range p.Results {
		result := &pb.Result{Exit: r.Exit, Stdout: output(r.Stdout), Log: output(r.Log), Wall: r.Wall, Cpu: r.CPU}
		for _, f := range r.Files {
			result.Files = append(result.Files, &pb.File{Name: f.Name, Output: output(f.Output)})
		}
		w.Results = append(w.Results, result)
	}
	b, err := proto.Marshal(w)
	if err != nil {
		panic(err)
	}
	return b
}

// SignEnvelope signs whatever it is given.
func SignEnvelope(s Signer, domain string, payloadType, payload []byte) ([]byte, error) {
	raw, _, err := signEnvelope(s, domain, payloadType, payload)
	return raw, err
}
