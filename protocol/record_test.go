package protocol_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/compute-mesh/mesh/protocol/insecure"
	"github.com/compute-mesh/mesh/protocol/protocoltest"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/record"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestRecordsComeBackAsSigned(t *testing.T) {
	for _, kind := range protocoltest.Kinds {
		t.Run(kind.String(), rapid.MakeCheck(func(t *rapid.T) {
			signer := protocoltest.Signer(rapid.Uint8Range(0, 9).Draw(t, "signer"))
			want, err := protocol.SignRecord(signer, protocoltest.Body(t, kind, protocoltest.Job(t), signer.ID()))
			require.NoError(t, err)
			got, err := protocol.OpenRecord(want.Raw)
			require.NoError(t, err)
			require.Equal(t, want, got)
			require.Equal(t, kind, got.Body.Kind())
			require.Equal(t, signer.ID(), got.Signer)
		}))
	}
}

func TestReceiptsAndAnnouncementsComeBackAsSigned(t *testing.T) {
	t.Run("receipt", rapid.MakeCheck(func(t *rapid.T) {
		want, err := protocol.SignReceipt(protocoltest.Signer(1), protocoltest.Receipt(t))
		require.NoError(t, err)
		got, err := protocol.OpenReceipt(want.Raw)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}))
	t.Run("announcement", rapid.MakeCheck(func(t *rapid.T) {
		want := protocoltest.Announcement(t)
		require.LessOrEqual(t, len(want.Raw), protocol.MaxAnnouncement)
		got, err := protocol.OpenAnnouncement(want.Raw)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}))
}

// An envelope is libp2p's: its own code opens ours.
func TestEnvelopesAreThoseOfLibp2p(t *testing.T) {
	r := sample(t, protocol.KindKeep)
	e, err := record.UnmarshalEnvelope(r.Raw)
	require.NoError(t, err)
	raw, err := e.Marshal()
	require.NoError(t, err)
	require.Equal(t, r.Raw, raw)
	_, err = record.ConsumeTypedEnvelope(r.Raw, anyRecord("mesh/record/2/1"))
	require.NoError(t, err)
	_, err = record.ConsumeTypedEnvelope(r.Raw, anyRecord("mesh/record/3/1"))
	require.ErrorIs(t, err, record.ErrInvalidSignature)
}

// anyRecord is a libp2p record of the domain, whatever its payload.
type anyRecord string

func (r anyRecord) Domain() string                 { return string(r) }
func (r anyRecord) Codec() []byte                  { return nil }
func (r anyRecord) MarshalRecord() ([]byte, error) { return nil, errors.ErrUnsupported }
func (r anyRecord) UnmarshalRecord([]byte) error   { return nil }

// sample is the first record of the kind that rapid's fixed seed draws.
func sample(t testing.TB, kind protocol.Kind) protocol.Record {
	signer := protocoltest.Signer(7)
	body := rapid.Custom(func(t *rapid.T) protocol.Body {
		return protocoltest.Body(t, kind, protocoltest.Job(t), signer.ID())
	}).Example(1)
	r, err := protocol.SignRecord(signer, body)
	require.NoError(t, err)
	return r
}

// flips calls open with raw changed in one bit, for every bit.
func flips(t *testing.T, raw []byte, open func([]byte) error) {
	t.Helper()
	for bit := range 8 * len(raw) {
		changed := append([]byte(nil), raw...)
		changed[bit/8] ^= 1 << (bit % 8)
		if open(changed) == nil {
			t.Fatalf("accepted with bit %d of byte %d of %d changed", bit%8, bit/8, len(raw))
		}
	}
	for n := range raw {
		if open(raw[:n:n]) == nil {
			t.Fatalf("accepted with %d of %d bytes", n, len(raw))
		}
	}
	if open(append(append([]byte(nil), raw...), 0)) == nil {
		t.Fatal("accepted with a byte more")
	}
}

func TestOneChangedBitIsRefused(t *testing.T) {
	for _, kind := range protocoltest.Kinds {
		t.Run(kind.String(), func(t *testing.T) {
			flips(t, sample(t, kind).Raw, func(b []byte) error {
				_, err := protocol.OpenRecord(b)
				return err
			})
		})
	}
	t.Run("receipt", func(t *testing.T) {
		receipt := rapid.Custom(protocoltest.Receipt).Example(1)
		r, err := protocol.SignReceipt(protocoltest.Signer(1), receipt)
		require.NoError(t, err)
		flips(t, r.Raw, func(b []byte) error {
			_, err := protocol.OpenReceipt(b)
			return err
		})
	})
	t.Run("announcement", func(t *testing.T) {
		flips(t, rapid.Custom(protocoltest.Announcement).Example(1).Raw, func(b []byte) error {
			_, err := protocol.OpenAnnouncement(b)
			return err
		})
	})
}

// What is signed as one thing is worth nothing as another.
func TestDomainsKeepSignedObjectsApart(t *testing.T) {
	signer := protocoltest.Signer(1)
	payload := []byte("\x0a\x24" + string(protocoltest.CID(cid.DagCBOR, "job").Bytes()))
	for name, domain := range map[string]string{
		"another kind": "mesh/record/3/1", "another version": "mesh/record/2/2", "a receipt": "mesh/receipt/1", "nothing": "",
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := protocol.SignEnvelope(signer, domain, []byte{'m', 2}, payload)
			require.NoError(t, err)
			_, err = protocol.OpenRecord(raw)
			require.ErrorIs(t, err, protocol.ErrSignature)
		})
	}
	raw, err := protocol.SignEnvelope(signer, "mesh/record/2/1", []byte{'m', 2}, payload)
	require.NoError(t, err)
	_, err = protocol.OpenRecord(raw)
	require.NoError(t, err)
	_, err = protocol.OpenReceipt(raw)
	require.ErrorIs(t, err, protocol.ErrEncoding)
}

// A valid envelope with the key of another in it is refused: the signer is who signed.
func TestAnotherSignersKeyIsRefused(t *testing.T) {
	r := sample(t, protocol.KindKeep)
	other := protocoltest.Signer(8).ID()
	changed := append([]byte(nil), r.Raw...)
	copy(changed[2:], other[2:])
	_, err := protocol.OpenRecord(changed)
	require.ErrorIs(t, err, protocol.ErrSignature)
}

func TestKindsOfLaterVersionsAreKept(t *testing.T) {
	signer := protocoltest.Signer(1)
	job := protocol.JobIDOf(protocoltest.CID(cid.DagCBOR, "job"))
	payload := []byte("\x0a\x24" + string(job) + "\x9a\x06\x03new")
	raw, err := protocol.SignEnvelope(signer, "mesh/record/10/1", []byte{'m', 10}, payload)
	require.NoError(t, err)
	r, err := protocol.OpenRecord(raw)
	require.NoError(t, err)
	require.Equal(t, &protocol.Opaque{Job: job, Code: 10}, r.Body)
	require.Equal(t, raw, r.Raw)

	_, err = protocol.SignRecord(signer, r.Body)
	require.ErrorIs(t, err, protocol.ErrInvalid, "only its own bytes can be forwarded")

	raw, err = protocol.SignEnvelope(signer, "mesh/record/10/1", []byte{'m', 10}, []byte("\x12\x01x"))
	require.NoError(t, err)
	_, err = protocol.OpenRecord(raw)
	require.ErrorIs(t, err, protocol.ErrEncoding, "without a job nobody can file it")
}

// A field of a later version in a known kind is ignored, and kept in the bytes.
func TestFieldsOfLaterVersionsAreIgnored(t *testing.T) {
	job := protocol.JobIDOf(protocoltest.CID(cid.DagCBOR, "job"))
	payload := []byte("\x0a\x24" + string(job) + "\x10\x05\x18\x01" + "\x9a\x06\x03new")
	raw, err := protocol.SignEnvelope(protocoltest.Signer(1), "mesh/record/1/1", []byte{'m', 1}, payload)
	require.NoError(t, err)
	r, err := protocol.OpenRecord(raw)
	require.NoError(t, err)
	require.Equal(t, &protocol.Control{Job: job, Sequence: 5, Verb: protocol.VerbCancel}, r.Body)
}

func TestOnlyEd25519Signs(t *testing.T) {
	key, _, err := crypto.GenerateKeyPair(crypto.Secp256k1, 0)
	require.NoError(t, err)
	_, err = protocol.NewSigner(key)
	require.ErrorIs(t, err, protocol.ErrInvalid)
}

func TestSizeIsCheckedFirst(t *testing.T) {
	_, err := protocol.OpenRecord(make([]byte, protocol.MaxRecord+1))
	require.ErrorIs(t, err, protocol.ErrSize)
	_, err = protocol.OpenReceipt(make([]byte, protocol.MaxReceipt+1))
	require.ErrorIs(t, err, protocol.ErrSize)
	_, err = protocol.OpenAnnouncement(make([]byte, protocol.MaxAnnouncement+1))
	require.ErrorIs(t, err, protocol.ErrSize)
}

func TestImaginaryPeersSignOnlyForTheirVerifier(t *testing.T) {
	signer := insecure.NewSigner(42)
	job := protocol.JobIDOf(protocoltest.CID(cid.DagCBOR, "job"))
	r, err := protocol.SignRecord(signer, &protocol.Keep{Job: job})
	require.NoError(t, err)
	codec := protocol.Codec{Verifier: insecure.Verifier{}}
	got, err := codec.OpenRecord(r.Raw)
	require.NoError(t, err)
	require.Equal(t, r, got)
	_, err = protocol.OpenRecord(r.Raw)
	require.ErrorIs(t, err, protocol.ErrSignature, "a real mesh takes none of them")
	flips(t, r.Raw, func(b []byte) error {
		_, err := codec.OpenRecord(b)
		return err
	})
}

// counting is a Verifier that counts what reaches it.
type counting struct {
	protocol.Ed25519
	calls int
}

func (c *counting) Verify(signer protocol.PeerID, message, signature []byte) bool {
	c.calls++
	return c.Ed25519.Verify(signer, message, signature)
}

func TestSeenVerifiesOnceAndNeverTrustsAChange(t *testing.T) {
	counted := &counting{}
	codec := protocol.Codec{Verifier: protocol.NewSeen(counted, 100)}
	r := sample(t, protocol.KindKeep)
	for range 3 {
		_, err := codec.OpenRecord(r.Raw)
		require.NoError(t, err)
	}
	require.Equal(t, 1, counted.calls)
	flips(t, r.Raw, func(b []byte) error {
		_, err := codec.OpenRecord(b)
		return err
	})
}

func TestSeenForgetsTheOldest(t *testing.T) {
	counted := &counting{}
	codec := protocol.Codec{Verifier: protocol.NewSeen(counted, 2)}
	open := func(n int) {
		job := protocol.JobIDOf(protocoltest.CID(cid.DagCBOR, fmt.Sprint(n)))
		r, err := protocol.SignRecord(protocoltest.Signer(1), &protocol.Keep{Job: job})
		require.NoError(t, err)
		_, err = codec.OpenRecord(r.Raw)
		require.NoError(t, err)
	}
	for n := range 6 {
		open(n)
	}
	require.Equal(t, 6, counted.calls)
	open(5)
	require.Equal(t, 6, counted.calls, "the newest is remembered")
	open(0)
	require.Equal(t, 7, counted.calls, "the oldest is forgotten")
}
