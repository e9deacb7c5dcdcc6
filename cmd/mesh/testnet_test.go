package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/compute-mesh/mesh/testnet"
)

func TestFaultsThatAreNotSaidRight(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ args, want string }{
		{"pause", "the number of a peer is missing"},
		{"pause 1 2", `unexpected argument "2"`},
		{"resume one", `"one" is no peer`},
		{"partition", "a group of peers"},
		{"partition 0,1 2;3", `"2;3" is no list of peers`},
		{"partition 0, 1", `"0," is no list of peers`},
		{"heal 1", `unexpected argument "1"`},
		{"chaos --keep x", `"x" is no list of peers`},
		{"chaos --for soon", "soon"},
		{"chaos --seed -1", "-1"},
	} {
		args := append([]string{"testnet", "--dir", dir}, strings.Fields(c.args)...)
		if r := mesh(t.Context(), dir, "", args...); r.status != exitUsage || !strings.Contains(r.err, c.want) {
			t.Errorf("%s: status %d, %q", c.args, r.status, r.err)
		}
	}
	for _, args := range []string{"pause 0", "resume 0", "partition 0", "heal", "chaos"} {
		words := append([]string{"testnet", "--dir", dir}, strings.Fields(args)...)
		if r := mesh(t.Context(), dir, "", words...); r.status != exitFailed || !strings.Contains(r.err, "mesh testnet up") {
			t.Errorf("%s where there is no testnet: status %d, %q", args, r.status, r.err)
		}
	}
}

func TestEventsArePrinted(t *testing.T) {
	for _, c := range []struct {
		event testnet.Event
		fault error
		text  string
		json  string
	}{
		{testnet.Event{At: 12345 * time.Millisecond, Kind: testnet.KindKill}, nil, "  12.345s  kill 0\n", `{"at":"12.345s","fault":"kill","peer":0}` + "\n"},
		{testnet.Event{At: time.Second, Kind: testnet.KindPartition, Groups: [][]int{{0, 2}, {1}}}, nil,
			"   1.000s  partition 0,2 1\n", `{"at":"1s","fault":"partition","groups":[[0,2],[1]]}` + "\n"},
		{testnet.Event{Kind: testnet.KindHeal}, nil, "   0.000s  heal\n", `{"at":"0s","fault":"heal"}` + "\n"},
		{testnet.Event{Kind: testnet.KindPause, Peer: 3}, errors.New("testnet: it\x1b does not run"),
			"   0.000s  pause 3: it\\x1b does not run\n", `{"at":"0s","fault":"pause","peer":3,"error":"it\u001b does not run"}` + "\n"},
	} {
		for _, json := range []bool{false, true} {
			var out bytes.Buffer
			(&cli{out: &out, json: json}).showEvent(c.event, c.fault)
			if want := map[bool]string{false: c.text, true: c.json}[json]; out.String() != want {
				t.Errorf("%q, want %q", out.String(), want)
			}
		}
	}
}
