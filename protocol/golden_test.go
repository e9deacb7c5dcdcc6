package protocol_test

import (
	"bufio"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/compute-mesh/mesh/protocol"
	"github.com/compute-mesh/mesh/protocol/protocoltest"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden files anew; only for things that are new in them")

const goldenFile = "testdata/golden.txt"

// golden is what version 1 says with fixed keys: each of these is in golden.txt as bytes
// that every later version must read the same, and sign the same.
func golden(t *testing.T) (names []string, bodies map[string]protocol.Body) {
	receipts := []protocol.SignedReceipt{receipt(t, me, nil), receipt(t, other, nil)}
	sequence := protocol.Sequence{Incarnation: 1_700_000_000_000, Counter: 7}
	list := []struct {
		name string
		body protocol.Body
	}{
		{"control", &protocol.Control{Job: job, Sequence: 1_700_000_000_001, Verb: protocol.VerbRetry}},
		{"keep", &protocol.Keep{Job: job, Groups: protocol.AllGroups(64), Sequence: sequence}},
		{"unkeep", &protocol.Unkeep{Job: job, Keep: hash, Groups: 5, Sequence: sequence}},
		{"segment-grant", &protocol.Segment{StageRef: ref, Life: 1, Range: tasks, Epoch: 3, Holder: other.ID(), Cause: protocol.CauseGrant, Replaced: me.ID()}},
		{"segment-release", &protocol.Segment{StageRef: ref, Life: 1, Range: tasks, Epoch: 3, Cause: protocol.CauseRelease, Replaced: me.ID()}},
		{"segment-release-for", &protocol.Segment{StageRef: ref, Life: 1, Range: tasks, Epoch: 3, Cause: protocol.CauseReleaseFor, Replaced: other.ID(), Keep: hash}},
		{"segment-adopt", &protocol.Segment{StageRef: ref, Life: 1, Range: tasks, Epoch: 4, Holder: me.ID(), Cause: protocol.CauseAdopt}},
		{"done", &protocol.Done{StageRef: ref, Life: 2, Range: tasks, Page: chunk, Receipts: receipts}},
		{"failed", &protocol.Failed{StageRef: ref, Life: 1, Task: 5, Generation: 2, Attempt: 3, Reason: protocol.ReasonExit, Exit: -1, Detail: "exit status -1", Log: chunk}},
		{"checkpoint", &protocol.Checkpoint{StageRef: ref, Life: 1, Task: 5, Epoch: 3, Sequence: 9, State: protocoltest.CID(cid.DagProtobuf, "state")}},
		{"checkpoint-after", &protocol.Checkpoint{StageRef: ref, Life: 1, Task: 5, Epoch: 3, Sequence: 9, State: protocoltest.CID(cid.DagProtobuf, "state"), Earlier: protocoltest.CID(cid.Raw, "earlier")}},
		{"seal", &protocol.Seal{StageRef: ref, Life: 1, Level: 1, Number: 2, Root: protocoltest.CID(cid.DagCBOR, "root"), Time: 1_700_000_000_002, Keep: hash}},
		{"reopen", &protocol.Reopen{StageRef: ref, Range: tasks, Life: 3, Cause: protocol.ReopenEpoch, Keep: hash}},
	}
	bodies = make(map[string]protocol.Body)
	for _, g := range list {
		names = append(names, g.name)
		bodies[g.name] = g.body
	}
	return names, bodies
}

func goldenAnnouncement(t *testing.T) protocol.Announcement {
	a, err := protocol.SignAnnouncement(me, protocol.Announcement{Job: job, Owner: other.ID(), Memory: 256 << 20, Tasks: 1000, Priority: -3,
		Time: 1_700_000_000_000, Expires: 1_702_592_000_000, Keepers: []protocol.KeeperAddrs{
			{Peer: me.ID(), Addrs: []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/192.0.2.1/tcp/7740")}}}})
	require.NoError(t, err)
	return a
}

func goldenPage(t *testing.T) (cid.Cid, []byte) {
	c, b, err := protocol.EncodePage(protocol.Page{StageRef: ref, Life: 1, Range: protocol.Range{Lo: 5, Hi: 7}, Worker: me.ID(), Results: []protocol.Result{
		{Exit: 1, Stdout: protocol.Output{Inline: []byte("a line\n"), Size: 7}, Wall: 1500, CPU: 1400},
		{Stdout: protocol.Output{Root: chunk, Size: 1 << 20}, Log: protocol.Output{Inline: []byte("log"), Size: 3},
			Files: []protocol.File{{Name: "a/b.png", Output: protocol.Output{Root: chunk, Size: 9}}, {Name: "empty"}}}}})
	require.NoError(t, err)
	return c, b
}

func goldenMessage(t *testing.T) []byte {
	b, err := protocol.EncodeMessage(&protocol.Bid{Job: job, ID: protocol.Sequence{Incarnation: 1_700_000_000_000, Counter: 7}, Slots: 4,
		Rate: 2500, Memory: 1 << 30, Groups: 5, Stage: ref, Drain: 900})
	require.NoError(t, err)
	return b
}

// lines is what golden.txt has to be: a name, the hash that the bytes are known by, and
// the bytes.
func lines(t *testing.T) []string {
	var all []string
	names, bodies := golden(t)
	for _, name := range names {
		r, err := protocol.SignRecord(me, bodies[name])
		require.NoError(t, err)
		all = append(all, fmt.Sprintf("%s %v %x", name, r.Hash, r.Raw))
	}
	c, b := goldenPage(t)
	return append(all,
		fmt.Sprintf("receipt - %x", receipt(t, me, nil).Raw),
		fmt.Sprintf("announcement - %x", goldenAnnouncement(t).Raw),
		fmt.Sprintf("page %v %x", c, b),
		fmt.Sprintf("message - %x", goldenMessage(t)),
		fmt.Sprintf("order-done %v", protocol.DoneOrder(job, 1, hash, 5, me.ID())),
		fmt.Sprintf("order-held %v", protocol.HeldOrder(job, 1, hash, 3, "")),
		fmt.Sprintf("order-seal %v", protocol.SealOrder(job, 1, hash, 2048, other.ID())))
}

// What was written once is written the same for ever.
func TestGoldenBytesAreWrittenAsBefore(t *testing.T) {
	want := strings.Join(lines(t), "\n") + "\n"
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(goldenFile, []byte(want), 0o644))
	}
	have, err := os.ReadFile(goldenFile)
	require.NoError(t, err)
	require.Equal(t, string(have), want)
}

// What was written once is read the same for ever.
func TestGoldenBytesAreReadAsBefore(t *testing.T) {
	f, err := os.Open(goldenFile)
	require.NoError(t, err)
	defer f.Close()
	_, bodies := golden(t)
	read := 0
	for s := bufio.NewScanner(f); s.Scan(); {
		part := strings.Fields(s.Text())
		if len(part) < 3 {
			continue
		}
		raw, err := hex.DecodeString(part[2])
		require.NoError(t, err)
		if bodies[part[0]] == nil {
			readGolden(t, part[0], part[1], raw)
			continue
		}
		r, err := protocol.OpenRecord(raw)
		require.NoError(t, err, part[0])
		require.Equal(t, bodies[part[0]], r.Body)
		require.Equal(t, part[1], r.Hash.String())
		require.Equal(t, me.ID(), r.Signer)
		read++
	}
	require.Equal(t, len(bodies), read)
}

// readGolden reads what is no record.
func readGolden(t *testing.T, name, hash string, raw []byte) {
	switch name {
	case "receipt":
		r, err := protocol.OpenReceipt(raw)
		require.NoError(t, err)
		require.Equal(t, receipt(t, me, nil).Receipt, r.Receipt)
	case "announcement":
		a, err := protocol.OpenAnnouncement(raw)
		require.NoError(t, err)
		require.Equal(t, goldenAnnouncement(t), a)
	case "page":
		p, err := protocol.DecodePage(cid.MustParse(hash), raw)
		require.NoError(t, err)
		require.Equal(t, "a/b.png", p.Results[1].Files[0].Name)
		require.Equal(t, "a line\n", string(p.Results[0].Stdout.Inline))
	case "message":
		m, err := protocol.DecodeMessage(raw)
		require.NoError(t, err)
		require.IsType(t, &protocol.Bid{}, m)
	default:
		t.Fatalf("a line of %q", name)
	}
}
