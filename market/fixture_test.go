package market

import (
	"bytes"
	"crypto/sha256"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/compute-mesh/mesh/protocol/insecure"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/multiformats/go-multihash"
)

// The fixtures of this package's tests: one owner, peers 0, 1, 2 ... with cheap
// signatures, and jobs that are signed for real.

// testMesh and testEpoch are the mesh and the wall clock, in Unix ms, of all tests.
const (
	testMesh  = "test"
	testEpoch = 1_700_000_000_000
)

func ownerKey() crypto.PrivKey {
	seed := sha256.Sum256([]byte("market test owner"))
	key, _, err := crypto.GenerateEd25519Key(bytes.NewReader(seed[:]))
	if err != nil {
		panic(err)
	}
	return key
}

var testOwner = func() protocol.PeerID {
	s, err := protocol.NewSigner(ownerKey())
	if err != nil {
		panic(err)
	}
	return s.ID()
}()

func testPeer(n int) insecure.Signer { return insecure.NewSigner(uint64(n)) }

func testCID(codec uint64, content string) cid.Cid {
	sum := sha256.Sum256([]byte(content))
	return cid.NewCidV1(codec, append(multihash.Multihash{0x12, 0x20}, sum[:]...))
}

// failer is what a fixture needs of a test: of testing.T, testing.B and rapid.T.
type failer interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// testJob is an array job of tasks whose submitter's peer is peer 0, with what change
// makes of it.
func testJob(t failer, tasks uint64, change func(*job.Spec)) *job.Signed {
	t.Helper()
	spec := job.DefaultSpec()
	spec.Mesh, spec.Owner, spec.Submitter = testMesh, testOwner, testPeer(0).ID()
	spec.Nonce[0] = 1
	spec.Now = time.UnixMilli(testEpoch)
	spec.Map = job.Command{Program: job.File{Name: "map.wasm", Root: testCID(cid.Raw, "map"), Size: 3}}
	spec.Array = tasks
	if change != nil {
		change(&spec)
	}
	m, err := job.Build(spec)
	if err != nil {
		t.Fatal(err)
	}
	j, err := job.Sign(m, ownerKey())
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// withReduce adds reducers that read fanIn outputs each; 0: one that reads all.
func withReduce(fanIn uint64) func(*job.Spec) {
	return func(s *job.Spec) {
		s.FanIn = fanIn
		s.Reduce = &job.Command{Program: job.File{Name: "reduce.wasm", Root: testCID(cid.Raw, "reduce"), Size: 6}}
	}
}

// signed is the record of a body, which must be valid.
func signed(t failer, s protocol.Signer, b protocol.Body) *protocol.Record {
	t.Helper()
	rec, err := protocol.SignRecord(s, b)
	if err != nil {
		t.Fatalf("%T: %v", b, err)
	}
	return &rec
}

// firstRef names a stage that reads no other.
func firstRef(j *job.Signed) protocol.StageRef {
	return protocol.StageRef{Job: j.ID, Key: j.InputKey(0, nil)}
}

// receiptOf is peer n's receipt for a Done.
func receiptOf(t failer, n int, d *protocol.Done, keep protocol.Hash) protocol.SignedReceipt {
	t.Helper()
	r, err := protocol.SignReceipt(testPeer(n), protocol.Receipt{StageRef: d.StageRef, Life: d.Life, Range: d.Range, Page: d.Page, Keep: keep})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// testConfig is peer n's, with 2 slots.
func testConfig(n int) Config {
	cfg := DefaultConfig()
	cfg.Signer, cfg.Codec = testPeer(n), protocol.Codec{Verifier: insecure.Verifier{}}
	cfg.Mesh, cfg.Seed, cfg.Incarnation = testMesh, uint64(n)+1, testEpoch
	cfg.Slots, cfg.Memory = 2, 8<<30
	return cfg
}

// testMachine is peer n, new at the instant 0.
func testMachine(t failer, n int, change func(*Config)) *Machine {
	t.Helper()
	cfg := testConfig(n)
	if change != nil {
		change(&cfg)
	}
	m, err := New(cfg, instant(0), nil)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// instant is a moment after the start of a test.
func instant(at time.Duration) Instant {
	return Instant{Mono: at, Unix: testEpoch + at.Milliseconds()}
}

func step(t failer, m *Machine, at time.Duration, in Input) {
	t.Helper()
	if err := m.Step(instant(at), in); err != nil {
		t.Fatalf("%T: %v", in, err)
	}
}
