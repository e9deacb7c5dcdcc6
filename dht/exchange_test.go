package dht

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-varint"
)

// signedBy is a peer record of p's, signed with key.
func signedBy(t testing.TB, key crypto.PrivKey, p peer.ID, addrs ...string) []byte {
	t.Helper()
	rec := peer.NewPeerRecord()
	rec.PeerID = p
	for _, a := range addrs {
		rec.Addrs = append(rec.Addrs, multiaddr.StringCast(a))
	}
	envelope, err := record.Seal(rec, key)
	if err != nil {
		t.Fatal(err)
	}
	bytes, err := envelope.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

func idOf(t testing.TB, key crypto.PrivKey) peer.ID {
	t.Helper()
	p, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestRecordsSurviveTheWireAndLimitsAreChecked(t *testing.T) {
	var wire bytes.Buffer
	sent := [][]byte{[]byte("one"), {}, make([]byte, maxRecord)}
	if err := writeRecords(&wire, sent); err != nil {
		t.Fatal(err)
	}
	whole := bytes.Clone(wire.Bytes())
	got, err := readRecords(&wire, maxRecords)
	if err != nil || len(got) != len(sent) || !bytes.Equal(got[0], sent[0]) || len(got[2]) != maxRecord {
		t.Fatalf("read %d records, %v", len(got), err)
	}
	huge := append(varint.ToUvarint(1), varint.ToUvarint(1<<40)...)
	for what, message := range map[string][]byte{
		"nothing":           {},
		"too many records":  varint.ToUvarint(maxRecords + 1),
		"record too large":  huge,
		"cut off":           whole[:len(whole)-1],
		"number not ending": bytes.Repeat([]byte{0xff}, 20),
	} {
		if _, err := readRecords(bytes.NewReader(message), maxRecords); !errors.Is(err, errMalformed) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestPeerRecordMustBeSignedByItsOwnEd25519Key(t *testing.T) {
	key, other := newKey(t), newKey(t)
	if _, rec, err := openRecord(signedBy(t, key, idOf(t, key), "/ip4/192.0.2.1/tcp/1")); err != nil || len(rec.Addrs) != 1 {
		t.Errorf("honest record: %v", err)
	}
	if _, _, err := openRecord(signedBy(t, other, idOf(t, key))); !errors.Is(err, errMalformed) {
		t.Errorf("signed by another: %v", err)
	}
	weak, _, err := crypto.GenerateSecp256k1Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := openRecord(signedBy(t, weak, idOf(t, weak))); !errors.Is(err, errMalformed) {
		t.Errorf("another kind of key: %v", err)
	}
	forged := signedBy(t, key, idOf(t, key))
	forged[len(forged)-1] ^= 1
	if _, _, err := openRecord(forged); !errors.Is(err, errMalformed) {
		t.Errorf("forged: %v", err)
	}
}

// TestLiarInTheExchangeIsHarmless: a peer that answers and asks with garbage is no reason to fail.
func TestLiarInTheExchangeIsHarmless(t *testing.T) {
	n := start(t, onLoopbackOnly(t, new(heard)))
	liar := start(t, onLoopbackOnly(t, new(heard)))
	forger, victim := newKey(t), newKey(t)
	liar.host.SetStreamHandler(liar.exchange, func(s network.Stream) {
		defer s.Close()
		_ = writeRecords(s, [][]byte{signedBy(t, forger, idOf(t, victim), "/ip4/127.0.0.1/tcp/1")})
	})
	if err := n.Connect(t.Context(), addrInfo(liar)); err != nil {
		t.Fatal(err)
	}
	if found, err := n.ask(t.Context(), liar.ID()); !errors.Is(err, errMalformed) {
		t.Errorf("asked a liar: %v, %v", found, err)
	}
	s, err := liar.host.NewStream(t.Context(), n.ID(), n.exchange)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeRecords(s, [][]byte{signedBy(t, victim, idOf(t, victim), "/ip4/127.0.0.1/tcp/1")}); err != nil {
		t.Fatal(err)
	}
	if _, err := readRecords(s, maxRecords); err == nil {
		t.Error("a record of somebody else's was accepted as the asker's")
	}
	eventually(t, "the liar is still a peer", func() bool { return n.Stats().Peers == 1 })
}

func TestAddressesFromElsewhereAreCutDown(t *testing.T) {
	var many []multiaddr.Multiaddr
	for i := range 2 * maxAddrs {
		many = append(many, multiaddr.StringCast(fmt.Sprintf("/ip4/192.0.2.%d/tcp/1", i)))
	}
	many = append([]multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/1")}, many...)
	if got := dialable(many, false); len(got) != maxAddrs || onLoopback(got[0]) {
		t.Errorf("from another machine: %v", got)
	}
	if got := dialable(many, true); len(got) != maxAddrs || !onLoopback(got[0]) {
		t.Errorf("from this machine: %v", got)
	}
}

func FuzzReadRecords(f *testing.F) {
	key := newKey(f)
	var wire bytes.Buffer
	if err := writeRecords(&wire, [][]byte{signedBy(f, key, idOf(f, key), "/ip4/192.0.2.1/tcp/1")}); err != nil {
		f.Fatal(err)
	}
	f.Add(wire.Bytes())
	f.Add([]byte{64})
	f.Fuzz(func(t *testing.T, message []byte) {
		records, err := readRecords(bytes.NewReader(message), maxRecords)
		if err != nil {
			return
		}
		if len(records) > maxRecords {
			t.Fatalf("%d records", len(records))
		}
		for _, r := range records {
			if len(r) > maxRecord {
				t.Fatalf("record of %d bytes", len(r))
			}
			if _, rec, err := openRecord(r); err == nil {
				dialable(rec.Addrs, false)
			}
		}
	})
}
