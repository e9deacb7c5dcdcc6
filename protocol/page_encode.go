package protocol

import (
	"crypto/sha256"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
	"google.golang.org/protobuf/encoding/protowire"
)

// The fields of the messages Page, Result, File and Output of wire.proto. Pages are read
// and written by hand: a generated decoder would spend memory before a limit is checked.
const (
	pageJob     protowire.Number = 1
	pageStage   protowire.Number = 2
	pageKey     protowire.Number = 3
	pageLife    protowire.Number = 4
	pageLo      protowire.Number = 5
	pageHi      protowire.Number = 6
	pageWorker  protowire.Number = 7
	pageResults protowire.Number = 8

	resultExit   protowire.Number = 1
	resultStdout protowire.Number = 2
	resultFiles  protowire.Number = 3
	resultLog    protowire.Number = 4
	resultWall   protowire.Number = 5
	resultCPU    protowire.Number = 6

	fileName   protowire.Number = 1
	fileOutput protowire.Number = 2

	outputRoot   protowire.Number = 1
	outputSize   protowire.Number = 2
	outputInline protowire.Number = 3
)

// EncodePage gives the chunk of a page: equal pages have equal bytes. It refuses what
// DecodePage would refuse, more than MaxPage bytes (ErrSize) among it.
func EncodePage(p Page) (cid.Cid, []byte, error) {
	if err := p.validate(); err != nil {
		return cid.Undef, nil, err
	}
	size := 256
	for i := range p.Results {
		size += 1 + protowire.SizeBytes(resultSize(&p.Results[i]))
	}
	if size > MaxPage+256 {
		return cid.Undef, nil, fault("page", fmt.Sprintf("about %d bytes, at most %d", size, MaxPage), ErrSize)
	}
	b := make([]byte, 0, size)
	b = appendBytes(b, pageJob, string(p.Job))
	b = appendUint(b, pageStage, uint64(p.Stage))
	b = appendBytes(b, pageKey, string(p.Key[:]))
	b = appendUint(b, pageLife, uint64(p.Life))
	b = appendUint(b, pageLo, uint64(p.Range.Lo))
	b = appendUint(b, pageHi, uint64(p.Range.Hi))
	b = appendBytes(b, pageWorker, string(p.Worker))
	for i := range p.Results {
		r := &p.Results[i]
		b = appendSub(b, pageResults, resultSize(r))
		b = appendResult(b, r)
	}
	if len(b) > MaxPage {
		return cid.Undef, nil, fault("page", fmt.Sprintf("%d bytes, at most %d", len(b), MaxPage), ErrSize)
	}
	return pageCID(b), b, nil
}

func pageCID(b []byte) cid.Cid {
	hash := sha256.Sum256(b)
	return cid.NewCidV1(cid.Raw, append(multihash.Multihash{0x12, 0x20}, hash[:]...))
}

func appendResult(b []byte, r *Result) []byte {
	b = appendUint(b, resultExit, protowire.EncodeZigZag(int64(r.Exit)))
	b = appendOutput(b, resultStdout, &r.Stdout)
	for i := range r.Files {
		f := &r.Files[i]
		b = appendSub(b, resultFiles, fileSize(f))
		b = appendBytes(b, fileName, f.Name)
		b = appendOutput(b, fileOutput, &f.Output)
	}
	b = appendOutput(b, resultLog, &r.Log)
	b = appendUint(b, resultWall, r.Wall)
	return appendUint(b, resultCPU, r.CPU)
}

// appendOutput leaves an empty output out, and the size where the bytes tell it.
func appendOutput(b []byte, number protowire.Number, o *Output) []byte {
	size := outputSizeOf(o)
	if size == 0 {
		return b
	}
	b = appendSub(b, number, size)
	if !o.Root.Defined() {
		b = protowire.AppendTag(b, outputInline, protowire.BytesType)
		return protowire.AppendBytes(b, o.Inline)
	}
	b = appendBytes(b, outputRoot, o.Root.KeyString())
	return appendUint(b, outputSize, o.Size)
}

func appendSub(b []byte, number protowire.Number, size int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, number, protowire.BytesType), uint64(size))
}

func appendBytes(b []byte, number protowire.Number, v string) []byte {
	if v == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, number, protowire.BytesType), v)
}

func appendUint(b []byte, number protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, number, protowire.VarintType), v)
}

// Sizes, with one byte for each tag, as all field numbers are below 16.

func resultSize(r *Result) int {
	n := uintSize(protowire.EncodeZigZag(int64(r.Exit))) + subSize(outputSizeOf(&r.Stdout)) + subSize(outputSizeOf(&r.Log)) +
		uintSize(r.Wall) + uintSize(r.CPU)
	for i := range r.Files {
		n += 1 + protowire.SizeBytes(fileSize(&r.Files[i]))
	}
	return n
}

func fileSize(f *File) int { return subSize(len(f.Name)) + subSize(outputSizeOf(&f.Output)) }

func outputSizeOf(o *Output) int {
	if !o.Root.Defined() {
		return subSize(len(o.Inline))
	}
	return subSize(len(o.Root.KeyString())) + uintSize(o.Size)
}

// subSize is the size of a field of n bytes, which is left out where n is 0.
func subSize(n int) int {
	if n == 0 {
		return 0
	}
	return 1 + protowire.SizeBytes(n)
}

func uintSize(v uint64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(v)
}

func (p *Page) validate() error {
	v := check{subject: "page"}
	v.stage(p.StageRef)
	v.life(p.Life)
	v.block(p.Range)
	v.that(ValidPeer(p.Worker), "worker is no Ed25519 peer")
	v.that(uint64(len(p.Results)) == p.Range.Len(), "not one result for each task of its range")
	if v.err != nil {
		return v.err
	}
	for i := range p.Results {
		if err := p.Results[i].validate(); err != nil {
			return fmt.Errorf("protocol: page: task %d: %w", uint64(p.Range.Lo)+uint64(i), err)
		}
	}
	return nil
}

func (r *Result) validate() error {
	v := check{subject: "result"}
	v.output(&r.Stdout)
	v.output(&r.Log)
	v.that(len(r.Files) <= MaxOutFiles, "too many files")
	for i := range r.Files {
		f := &r.Files[i]
		if err := ValidName(f.Name); err != nil && v.err == nil {
			v.err = err
		}
		v.that(i == 0 || r.Files[i-1].Name < f.Name, "files not in byte order of their names")
		v.output(&f.Output)
	}
	return v.err
}

func (c *check) output(o *Output) {
	if o.Root.Defined() {
		c.that(ValidCID(o.Root), "an output is no file of chunks")
		c.that(len(o.Inline) == 0, "an output both inline and a file")
		return
	}
	c.that(len(o.Inline) <= MaxInline, "an inline output over MaxInline")
	c.that(o.Size == uint64(len(o.Inline)), "an inline output of another size than it says")
}
