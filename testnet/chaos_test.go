package testnet

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// testChaos: what is reported is the list that the seed gives, each time.
func testChaos(t *testing.T, n Net) {
	c := ChaosConfig{For: 4 * time.Second, Seed: 109, Keep: []int{0}, Down: 2}
	var lists [2][]Event
	for k := range lists {
		err := n.Chaos(t.Context(), c, func(e Event, err error) {
			if err != nil {
				t.Errorf("%s: %v", e.Kind, err)
			}
			lists[k] = append(lists[k], e)
		})
		if err != nil {
			t.Fatal(err)
		}
		see(t, n, [][]int{{1, 2, 3}, {0, 2, 3}, {0, 1, 3}, {0, 1, 2}})
	}
	for _, k := range Kinds() {
		if !slices.ContainsFunc(lists[0], func(e Event) bool { return e.Kind == k }) {
			t.Errorf("the seed gives no %s: choose another", k)
		}
	}
	if !reflect.DeepEqual(lists[0], lists[1]) || !reflect.DeepEqual(lists[0], c.schedule(4)) {
		t.Errorf("one seed gave\n%+v\n%+v\n%+v", lists[0], lists[1], c.schedule(4))
	}
}

// testChaosBrokenOff: an interrupt in the middle of faults heals them.
func testChaosBrokenOff(t *testing.T, n Net) {
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	open := 0
	err := n.Chaos(ctx, ChaosConfig{For: time.Minute, Seed: 5, Faults: []Kind{KindKill, KindPartition}}, func(e Event, err error) {
		switch e.Kind {
		case KindKill, KindPartition:
			open++
		case KindStart, KindHeal:
			open--
		}
		if open == 2 { // a dead peer and a partition
			interrupt()
			if other := n.Chaos(t.Context(), ChaosConfig{For: time.Second}, nil); other == nil || !strings.Contains(other.Error(), "goes on") {
				t.Errorf("a second chaos: %v", other)
			}
			if down := n.Down(t.Context()); down == nil || !strings.Contains(down.Error(), "goes on") {
				t.Errorf("down in a chaos: %v", down)
			}
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	see(t, n, [][]int{{1, 2, 3}, {0, 2, 3}, {0, 1, 3}, {0, 1, 2}})
	if err := n.Kill(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	if err := n.Chaos(t.Context(), ChaosConfig{For: time.Second}, nil); err == nil || !strings.Contains(err.Error(), "peer 2") {
		t.Errorf("chaos with a dead peer: %v", err)
	}
}

// Every schedule keeps what chaos promises.
func TestScheduleKeepsItsLimits(t *testing.T) {
	fired := map[Kind]int{}
	for seed := range uint64(500) {
		peers := 2 + int(seed%9)
		c := ChaosConfig{For: time.Duration(1+seed%90) * time.Second, Seed: seed, Keep: []int{int(seed) % peers}}
		if seed%3 == 0 {
			c.Down = 1 + int(seed/3)%(peers-1)
		}
		if seed%5 == 0 {
			c.Faults = []Kind{KindPause, KindKill}
		}
		if err := c.validate(peers); err != nil {
			t.Fatal(err)
		}
		events := c.schedule(peers)
		if !reflect.DeepEqual(events, c.schedule(peers)) {
			t.Fatalf("seed %d gives two lists", seed)
		}
		for _, e := range events {
			fired[e.Kind]++
		}
		if fault := check(c, peers, events); fault != "" {
			t.Errorf("seed %d: %s: %+v", seed, fault, events)
		}
	}
	for _, k := range append(Kinds(), KindStart, KindResume, KindHeal) {
		if fired[k] == 0 {
			t.Errorf("%s never happened", k)
		}
	}
}

// check plays a schedule and tells what is wrong with it.
func check(c ChaosConfig, peers int, events []Event) string {
	most := c.Down
	if most == 0 {
		most = max(1, peers/3)
	}
	down, parted, last := map[int]Kind{}, false, time.Duration(0)
	ends := map[Kind]Kind{KindStart: KindKill, KindResume: KindPause}
	for _, e := range events {
		if e.At < last || e.At > c.For || e.At%time.Millisecond != 0 {
			return fmt.Sprintf("%s at %s after %s", e.Kind, e.At, last)
		}
		last = e.At
		switch e.Kind {
		case KindPartition:
			if _, err := newPartition(e.Groups, peers); err != nil || parted || len(c.Faults) > 0 {
				return fmt.Sprintf("partition at %s: %v", e.At, err)
			}
			parted = true
		case KindHeal:
			if !parted {
				return "a heal of what is whole"
			}
			parted = false
		case KindStart, KindResume:
			if down[e.Peer] != ends[e.Kind] {
				return fmt.Sprintf("%s %d after %s", e.Kind, e.Peer, down[e.Peer])
			}
			delete(down, e.Peer)
		default:
			if down[e.Peer] != "" || slices.Contains(c.Keep, e.Peer) || len(down)+1 > most {
				return fmt.Sprintf("%s %d with %v down", e.Kind, e.Peer, down)
			}
			if e.Kind != KindRestart {
				down[e.Peer] = e.Kind
			}
		}
	}
	if len(down) > 0 || parted {
		return fmt.Sprintf("%v are down at the end, parted: %t", down, parted)
	}
	return ""
}

func TestChaosThatCanNotBe(t *testing.T) {
	for name, c := range map[string]ChaosConfig{
		"no time": {}, "too long": {For: 2 * MaxChaos}, "no fault": {For: time.Minute, Faults: []Kind{"flood"}},
		"keep": {For: time.Minute, Keep: []int{4}}, "all down": {For: time.Minute, Down: 4}, "negative": {For: time.Minute, Down: -1},
		"an end": {For: time.Minute, Faults: []Kind{KindHeal}},
	} {
		if c.validate(4) == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := (ChaosConfig{For: time.Minute}).validate(1); err == nil {
		t.Error("one peer: no error")
	}
	if err := open(t).Chaos(t.Context(), ChaosConfig{For: time.Minute}, nil); !errors.Is(err, ErrNotUp) {
		t.Errorf("%v", err)
	}
}
