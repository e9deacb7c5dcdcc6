package job

import (
	"bytes"
	"errors"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/traversal"
	"github.com/libp2p/go-libp2p/core/crypto"
	"pgregory.net/rapid"
)

// The bytes of a manifest are other peers' too: a change of this file is a new version.
func TestGoldenManifest(t *testing.T) {
	s := sign(t, build(t, fullSpec(t)))
	golden(t, "manifest.golden", describe(Block{CID: s.ID.CID(), Data: s.Raw}))
}

func TestOpenGivesWhatWasSigned(t *testing.T) {
	m := build(t, fullSpec(t))
	s := sign(t, m)
	opened, err := Open(s.Raw)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(opened, s) {
		t.Errorf("opened %+v, signed %+v", opened, s)
	}
	if c := s.ID.CID(); c.Prefix().Codec != cid.DagCBOR || c.Prefix().Version != 1 {
		t.Errorf("job ID %s is no CIDv1 of DAG-CBOR", c)
	}
}

func TestOpenRoundTrips(t *testing.T) {
	key, _ := fixedKey(t)
	base := fullSpec(t)
	rapid.Check(t, func(r *rapid.T) {
		s := base
		s.Name = rapid.StringMatching(`[a-zé ]{0,40}`).Draw(r, "name")
		s.Map.Args = rapid.SliceOfN(rapid.StringMatching(`[ -~é]{0,20}`), 0, 5).Draw(r, "args")
		s.Env = rapid.SliceOfN(rapid.StringMatching(`[A-L]{1,2}=[ -~]{0,8}`), 0, 6).Draw(r, "env")
		s.OkExit = rapid.SliceOfN(rapid.Int32(), 0, 5).Draw(r, "ok")
		s.Input.Count = rapid.Uint64Range(0, 5000).Draw(r, "count")
		s.Input.Bytes = rapid.Uint64Range(0, 1<<62).Draw(r, "bytes")
		s.Split = rapid.StringMatching(`([a-z]{1,12}(:[1-9][0-9]{0,18})?)?`).Draw(r, "split")
		s.FanIn = rapid.SampledFrom([]uint64{0, 2, 3, 100}).Draw(r, "fan-in")
		s.Retries = rapid.IntRange(0, MaxRetries).Draw(r, "retries")
		s.Priority = rapid.Int32Range(-100, 100).Draw(r, "priority")
		m, err := Build(s)
		if err != nil {
			r.Fatal(err)
		}
		signed, err := Sign(m, key)
		if err != nil {
			r.Fatal(err)
		}
		opened, err := Open(signed.Raw)
		if err != nil {
			r.Fatal(err)
		}
		again, err := Sign(opened.Manifest, key)
		if err != nil || again.ID != signed.ID || !bytes.Equal(again.Raw, signed.Raw) {
			r.Fatalf("signing what was opened gives %v, %v; want %v", again, err, signed)
		}
	})
}

// Every single changed, lost or added byte is refused: a job has one form.
func TestOpenRefusesTampering(t *testing.T) {
	raw := sign(t, build(t, fullSpec(t))).Raw
	for i := range raw {
		for _, flip := range []byte{1, 0x20, 0x80} {
			changed := bytes.Clone(raw)
			changed[i] ^= flip
			if _, err := Open(changed); err == nil {
				t.Fatalf("byte %d changed by %#x is accepted", i, flip)
			}
		}
		if _, err := Open(raw[:i]); !errors.Is(err, ErrMalformed) {
			t.Fatalf("cut to %d bytes: %v", i, err)
		}
	}
	if _, err := Open(append(bytes.Clone(raw), 0)); !errors.Is(err, ErrMalformed) {
		t.Errorf("a byte more: %v", err)
	}
	changed := bytes.Replace(raw, []byte("word count"), []byte("WORD count"), 1)
	if _, err := Open(changed); !errors.Is(err, ErrSignature) {
		t.Errorf("another name: %v", err)
	}
}

// Bytes that mean the same in another form are refused: keys in another order, numbers
// and lengths that are longer than they need be, unknown and doubled keys.
func TestOpenRefusesOtherForms(t *testing.T) {
	raw := sign(t, build(t, fullSpec(t))).Raw
	for name, change := range map[string][2]string{
		"long number":   {"\x67version\x01", "\x67version\x18\x01"},
		"long length":   {"\x67version\x01", "\x78\x07version\x01"},
		"map of two":    {"\xa2\x68manifest", "\xa3\x68manifest"},
		"open map":      {"\xa2\x68manifest", "\xbf\x68manifest"},
		"unknown key":   {"\x68manifest", "\x68manifesT"},
		"float":         {"\x67version\x01", "\x67version\xf9\x3c\x00"},
		"null":          {"\x64mesh\x67default", "\x64mesh\xf6"},
		"doubled key":   {"\x64mesh\x67default", "\x64name\x67default"},
		"text as bytes": {"\x64mesh\x67default", "\x64mesh\x47default"},
	} {
		changed := bytes.Replace(raw, []byte(change[0]), []byte(change[1]), 1)
		if bytes.Equal(changed, raw) {
			t.Fatalf("%s: nothing to change", name)
		}
		if _, err := Open(changed); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOpenChecksSizeFirst(t *testing.T) {
	if _, err := Open(make([]byte, MaxManifest+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
}

func TestOpenNamesANewerVersion(t *testing.T) {
	raw := sign(t, build(t, fullSpec(t))).Raw
	newer := bytes.Replace(raw, []byte("\x67version\x01"), []byte("\x67version\x02"), 1)
	other := bytes.Replace(newer, []byte("\x68replicas"), []byte("\x68REPLICAS"), 1)
	for name, data := range map[string][]byte{"same shape": newer, "other shape": other} {
		_, err := Open(data)
		if !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), "version 2") || !strings.Contains(err.Error(), "update") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSignRefusesAnotherKey(t *testing.T) {
	other, _, err := crypto.GenerateEd25519Key(bytes.NewReader(bytes.Repeat([]byte{8}, 64)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Sign(build(t, fullSpec(t)), other); !errors.Is(err, ErrSignature) {
		t.Errorf("got %v", err)
	}
}

func TestSignRefusesTooMuch(t *testing.T) {
	key, _ := fixedKey(t)
	s := fullSpec(t)
	s.FanIn = 2
	s.Env = []string{"LONG=" + strings.Repeat("x", 60_000)}
	if _, err := Sign(build(t, s), key); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
}

func TestCheckMesh(t *testing.T) {
	m := build(t, fullSpec(t))
	if err := m.CheckMesh("default"); err != nil {
		t.Error(err)
	}
	err := m.CheckMesh("lab")
	if !errors.Is(err, ErrMesh) || !strings.Contains(err.Error(), `"default"`) || !strings.Contains(err.Error(), `"lab"`) {
		t.Errorf("got %v", err)
	}
}

func TestExpired(t *testing.T) {
	m := build(t, fullSpec(t))
	if m.Expired(m.Expires.Add(-time.Millisecond)) || !m.Expired(m.Expires) {
		t.Error("a job is past its expiry from then on, and not before")
	}
}

// A stranger to this package finds every root as a link.
func TestLinksAreSeenByIPLD(t *testing.T) {
	s := fullSpec(t)
	node, err := ipld.DecodeUsingPrototype(sign(t, build(t, s)).Raw, dagcbor.Decode, basicnode.Prototype.Any)
	if err != nil {
		t.Fatal(err)
	}
	links, err := traversal.SelectLinks(node)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, l := range links {
		seen[l.String()] = true
	}
	for _, c := range []cid.Cid{s.Map.Program.Root, s.Reduce.Program.Root, s.Input.Root, s.Files[0].Root, s.Files[1].Root} {
		if !seen[c.String()] {
			t.Errorf("%s is no link of the block", c)
		}
	}
}

// One process opens and encodes from many goroutines.
func TestConcurrentUse(t *testing.T) {
	raw := sign(t, build(t, fullSpec(t))).Raw
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			s, err := Open(raw)
			if err != nil || s.Manifest.Validate() != nil {
				t.Error(err)
			}
			if _, err := LeafOf(numbered(100)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// Lengths and counts that a stranger claims are not believed before the bytes are there.
func TestDecodersAllocateLittle(t *testing.T) {
	raw := sign(t, build(t, fullSpec(t))).Raw
	for name, change := range map[string][2]string{
		"text":  {"\x64mesh\x67default", "\x64mesh\x7b\x00\x00\x00\x40\x00\x00\x00\x00"},
		"bytes": {"\x65nonce\x50", "\x65nonce\x5b\x00\x00\x00\x40\x00\x00\x00\x00"},
		"list":  {"\x65files\x82", "\x65files\x9b\x00\x00\x00\x40\x00\x00\x00\x00"},
		"map":   {"\x68manifest\xb0", "\x68manifest\xbb\x00\x00\x00\x40\x00\x00\x00\x00"},
		"4 GiB": {"\x64mesh\x67default", "\x64mesh\x7a\xff\xff\xff\xff"},
		"1 GiB": {"\x65nonce\x50", "\x65nonce\x5a\x40\x00\x00\x00"},
		"8 MiB": {"\x65nonce\x50", "\x65nonce\x5a\x00\x80\x00\x00"},
	} {
		changed := bytes.Replace(raw, []byte(change[0]), []byte(change[1]), 1)
		if bytes.Equal(changed, raw) {
			t.Fatalf("%s: nothing to change", name)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Open(changed)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > 4<<20 {
			t.Errorf("%s: %d bytes allocated for a manifest of %d", name, got, len(changed))
		}
	}
}
