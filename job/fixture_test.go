package job

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// fixedKey is the same owner's key in every run.
func fixedKey(t testing.TB) (crypto.PrivKey, peer.ID) {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(bytes.NewReader(bytes.Repeat([]byte{7}, 64)))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, id
}

func rawCID(t testing.TB, text string) cid.Cid {
	t.Helper()
	return mustCID(t, codecRaw, text)
}

func mustCID(t testing.TB, codec uint64, text string) cid.Cid {
	t.Helper()
	c, err := cidOf(codec, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// fullSpec says something in every field.
func fullSpec(t testing.TB) Spec {
	t.Helper()
	_, owner := fixedKey(t)
	s := DefaultSpec()
	s.Owner, s.Submitter = owner, owner
	s.Nonce = [16]byte{1, 2, 3}
	s.Now = time.Date(2026, 1, 2, 3, 4, 5, 6_789_000, time.UTC)
	s.Name = "word count"
	s.Map = Command{Program: File{Name: "dir/count.wasm", Root: rawCID(t, "map"), Size: 1000}, Args: []string{"-n", "{index}"}}
	s.Reduce = &Command{Program: File{Name: "sum.wasm", Root: mustCID(t, codecDagPB, "reduce"), Size: 2000}, Args: []string{"ü"}}
	s.FanIn = 4
	s.Input = Input{Root: mustCID(t, codecDagCBOR, "index"), Count: 70, Bytes: 1 << 30}
	s.Split = "lines:8388608"
	s.Files = []File{{Name: "stop/words.txt", Root: rawCID(t, "words"), Size: 9}, {Name: "model", Root: rawCID(t, "model"), Size: 0}}
	s.Env = []string{"LANG=C", "A=1", "A=2", "EMPTY="}
	s.OkExit = []int32{1, 0, 1}
	s.KeepGoing, s.Nondeterministic, s.Priority = true, true, -5
	return s
}

func build(t testing.TB, s Spec) Manifest {
	t.Helper()
	m, err := Build(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func sign(t testing.TB, m Manifest) *Signed {
	t.Helper()
	key, _ := fixedKey(t)
	s, err := Sign(m, key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// arraySpec is the smallest job: n tasks of one program.
func arraySpec(t testing.TB, n uint64) Spec {
	t.Helper()
	s := fullSpec(t)
	s.Input, s.Split, s.Reduce, s.FanIn, s.Files, s.Env, s.OkExit = Input{}, "", nil, 0, nil, nil, nil
	s.Array = n
	return s
}

// store keeps chunks in memory and counts what is asked of it.
type store struct {
	chunks  map[cid.Cid][]byte
	largest int
	gets    int
}

func newStore() *store { return &store{chunks: map[cid.Cid][]byte{}} }

func (s *store) put(b Block) error {
	c, err := cidOf(b.CID.Prefix().Codec, b.Data)
	if err != nil {
		return err
	}
	if c != b.CID {
		return fmt.Errorf("block is not named by its CID: %s, %s", c, b.CID)
	}
	s.largest = max(s.largest, len(b.Data))
	s.chunks[b.CID] = bytes.Clone(b.Data)
	return nil
}

var errAbsent = errors.New("absent")

func (s *store) get(c cid.Cid) ([]byte, error) {
	s.gets++
	data, ok := s.chunks[c]
	if !ok {
		return nil, errAbsent
	}
	return data, nil
}

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares text with the file of that name in testdata.
func golden(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, text, want)
	}
}

// describe is the golden form of blocks: a CID and the bytes in hexadecimal a line.
func describe(blocks ...Block) string {
	var b strings.Builder
	for _, block := range blocks {
		fmt.Fprintf(&b, "%s %x\n", block.CID, block.Data)
	}
	return b.String()
}
