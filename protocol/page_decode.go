package protocol

import (
	"fmt"
	"math"

	"github.com/ipfs/go-cid"
	"google.golang.org/protobuf/encoding/protowire"
)

// DecodePage reads the page whose CID is c and checks it. Inline outputs are parts of b,
// which belongs to the page from then on.
func DecodePage(c cid.Cid, b []byte) (Page, error) {
	if len(b) > MaxPage {
		return Page{}, fault("page", fmt.Sprintf("%d bytes, at most %d", len(b), MaxPage), ErrSize)
	}
	if !c.Equals(pageCID(b)) {
		return Page{}, fault("page", "the bytes are not those of "+c.String(), ErrEncoding)
	}
	r := reading{subject: "page"}
	p := r.page(b)
	if r.err != nil {
		return Page{}, r.err
	}
	if err := p.validate(); err != nil {
		return Page{}, err
	}
	return p, nil
}

func (r *reading) page(b []byte) (p Page) {
	for f := (fields{b: b, repeated: pageResults}); f.next(r); {
		switch f.number {
		case pageJob:
			p.Job = JobID(f.bytes(r))
		case pageStage:
			p.Stage = StageIndex(f.uint32(r))
		case pageKey:
			p.Key = r.hash(f.bytes(r))
		case pageLife:
			p.Life = Life(f.uint32(r))
		case pageLo:
			p.Range.Lo = TaskIndex(f.uint(r))
		case pageHi:
			p.Range.Hi = TaskIndex(f.uint(r))
		case pageWorker:
			p.Worker = PeerID(f.bytes(r))
		case pageResults:
			// The range stands before the results and bounds what they may cost.
			n := p.Range.Len()
			if n > BlockSize || uint64(len(p.Results)) >= n {
				r.fail("more results than its range may have", ErrSize)
				return p
			}
			if p.Results == nil {
				p.Results = make([]Result, 0, n)
			}
			p.Results = append(p.Results, r.result(f.bytes(r)))
		}
	}
	return p
}

func (r *reading) result(b []byte) (v Result) {
	for f := (fields{b: b, repeated: resultFiles}); f.next(r); {
		switch f.number {
		case resultExit:
			exit := protowire.DecodeZigZag(f.uint(r))
			if exit != int64(int32(exit)) {
				r.fail("an exit status over 32 bits", ErrEncoding)
			}
			v.Exit = int32(exit)
		case resultStdout:
			v.Stdout = r.output(f.bytes(r))
		case resultFiles:
			if len(v.Files) == MaxOutFiles {
				r.fail("too many files", ErrSize)
				return v
			}
			v.Files = append(v.Files, r.file(f.bytes(r)))
		case resultLog:
			v.Log = r.output(f.bytes(r))
		case resultWall:
			v.Wall = f.uint(r)
		case resultCPU:
			v.CPU = f.uint(r)
		}
	}
	return v
}

func (r *reading) file(b []byte) (v File) {
	for f := (fields{b: b}); f.next(r); {
		switch f.number {
		case fileName:
			v.Name = string(f.bytes(r))
		case fileOutput:
			v.Output = r.output(f.bytes(r))
		}
	}
	return v
}

func (r *reading) output(b []byte) (v Output) {
	for f := (fields{b: b}); f.next(r); {
		switch f.number {
		case outputRoot:
			v.Root = r.cid(f.bytes(r))
		case outputSize:
			v.Size = f.uint(r)
		case outputInline:
			v.Inline = f.bytes(r)
		}
	}
	if !v.Root.Defined() {
		if v.Size != 0 {
			r.fail("an inline output with a size", ErrEncoding)
		}
		v.Size = uint64(len(v.Inline))
	}
	return v
}

// fields reads a protobuf message field by field. The numbers must ascend, and only one
// field may repeat: so there is one encoding of a page but for the lengths of varints
// and for fields of later versions, which are skipped.
type fields struct {
	b        []byte
	repeated protowire.Number

	number protowire.Number
	kind   protowire.Type
	value  []byte
}

// next goes to the next field; the end, or a fault, noted in r, ends the loop.
func (f *fields) next(r *reading) bool {
	if len(f.b) == 0 || r.err != nil {
		return false
	}
	number, kind, n := protowire.ConsumeTag(f.b)
	if n < 0 {
		r.fail("no tag", ErrEncoding)
		return false
	}
	if number < f.number || number == f.number && number != f.repeated {
		r.fail("fields out of order", ErrEncoding)
		return false
	}
	size := protowire.ConsumeFieldValue(number, kind, f.b[n:])
	if size < 0 {
		r.fail("a field that is cut off", ErrEncoding)
		return false
	}
	f.number, f.kind, f.value, f.b = number, kind, f.b[n:n+size], f.b[n+size:]
	return true
}

func (f *fields) bytes(r *reading) []byte {
	if f.kind != protowire.BytesType {
		r.fail("a field of another type", ErrEncoding)
		return nil
	}
	b, _ := protowire.ConsumeBytes(f.value)
	return b[:len(b):len(b)]
}

func (f *fields) uint(r *reading) uint64 {
	if f.kind != protowire.VarintType {
		r.fail("a field of another type", ErrEncoding)
		return 0
	}
	v, _ := protowire.ConsumeVarint(f.value)
	return v
}

func (f *fields) uint32(r *reading) uint32 {
	v := f.uint(r)
	if v > math.MaxUint32 {
		r.fail("a number over 32 bits", ErrEncoding)
	}
	return uint32(v)
}
