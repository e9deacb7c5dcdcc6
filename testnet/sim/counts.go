package sim

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
)

// Counts tell how often things came about, by name: "fault: ..." (what was done to the
// mesh), "order: ..." (what owners wanted), and of the machines "input: ...",
// "message: ...", "record: ...", "effect: ...", "job: ..." (states, and what follows on what).
type Counts map[string]int

// Add adds another's.
func (c Counts) Add(o Counts) {
	for k, n := range o {
		c[k] += n
	}
}

// Of is the sum of a class.
func (c Counts) Of(class string) (n int) {
	for k, v := range c {
		if strings.HasPrefix(k, class+": ") {
			n += v
		}
	}
	return n
}

func (c Counts) String() string {
	var b strings.Builder
	for _, k := range sortedKeys(c) {
		fmt.Fprintf(&b, "%10d  %s\n", c[k], k)
	}
	return b.String()
}

// Expected names what a run of many seeds must have seen at least once.
func Expected() []string {
	list := []string{
		"fault: message lost", "fault: message doubled", "fault: message into a cut", "fault: message held back",
		"fault: crash after an effect", "fault: kill", "fault: power cut", "fault: entries lost with the tail", "fault: blocks lost",
		"fault: restart", "fault: partition", "fault: one-way link", "fault: swizzle", "fault: slow peer", "fault: slow link",
		"fault: drifting clock", "fault: wrong wall clock", "fault: mass failure", "fault: all at once", "fault: churn", "fault: suspended",
		"fault: submitter gone", "fault: left", "fault: fetch failed", "fault: attempt failed", "fault: task given back", "fault: stranger", "fault: input missing",
		"fault: highest epoch claimed",
		"order: cancel", "order: pause", "order: resume", "order: retry", "journal: compacted",
		"job: done", "job: failed", "job: cancelled",
		"job: running, then done", "job: running, then failed", "job: running, then cancelled", "job: failed, then running",
	}
	for _, k := range []string{
		"Control", "Keep", "Segment grant", "Segment release", "Segment release for", "Segment adopt", "Done", "Failed",
		"Checkpoint", "Seal level 0", "Seal level 1", "Unkeep", "Reopen",
	} {
		list = append(list, "record: "+k)
	}
	for _, in := range []market.Input{
		market.Submit{}, market.Announced{}, market.Received{}, market.PeerUp{}, market.PeerDown{}, market.Probed{}, market.Ordered{},
		market.Fetched{}, market.Ended{Outcome: market.OutcomeDone}, market.Ended{Outcome: market.OutcomeFailed},
		market.Ended{Outcome: market.OutcomeReleased}, market.Ended{Outcome: market.OutcomeStopped}, market.Checkpointed{},
		market.Leaving{}, market.Gap{}, market.Tick{}, market.Died{},
	} {
		list = append(list, inputName(in))
	}
	for _, m := range []protocol.Message{
		&protocol.News{}, &protocol.Digest{}, &protocol.JobsRequest{}, &protocol.Jobs{}, &protocol.WorkRequest{}, &protocol.WorkAnswer{},
		&protocol.Bid{}, &protocol.Grant{}, &protocol.Refusal{}, &protocol.Beat{}, &protocol.KeepRequest{}, &protocol.KeepAnswer{},
		&protocol.ReceiptRequest{}, &protocol.ReceiptAnswer{}, &protocol.Stored{}, &protocol.Suspect{}, &protocol.Opinion{},
		&protocol.Backup{}, &protocol.Replicate{}, &protocol.Acknowledge{},
	} {
		list = append(list, messageName(m))
	}
	for _, k := range []string{"block", "persist", "sync", "send", "announce", "run", "stop", "fetch", "probe", "drop"} {
		list = append(list, "effect: "+k)
	}
	return list
}

// Missing is what was expected and never came about.
func (c Counts) Missing() []string {
	return slices.DeleteFunc(Expected(), func(k string) bool { return c[k] > 0 })
}

func messageName(m protocol.Message) string {
	switch m.(type) {
	case *protocol.News:
		return "message: News"
	case *protocol.Digest:
		return "message: Digest"
	case *protocol.Beat:
		return "message: Beat"
	case *protocol.Stored:
		return "message: Stored"
	case *protocol.ReceiptRequest:
		return "message: ReceiptRequest"
	case *protocol.ReceiptAnswer:
		return "message: ReceiptAnswer"
	}
	return "message: " + strings.TrimPrefix(fmt.Sprintf("%T", m), "*protocol.")
}

func inputName(in market.Input) string {
	switch in := in.(type) {
	case market.Received:
		return "input: Received"
	case market.Tick:
		return "input: Tick"
	case market.Ended:
		return [...]string{"", "input: Ended done", "input: Ended failed", "input: Ended released", "input: Ended stopped"}[in.Outcome]
	}
	return "input: " + strings.TrimPrefix(fmt.Sprintf("%T", in), "market.")
}

func stateName(s protocol.JobState) string {
	return [...]string{"unknown", "running", "failed", "done", "cancelled"}[s]
}

func recordName(b protocol.Body) string {
	switch b := b.(type) {
	case *protocol.Segment:
		switch b.Cause {
		case protocol.CauseGrant:
			return "record: Segment grant"
		case protocol.CauseRelease:
			return "record: Segment release"
		case protocol.CauseReleaseFor:
			return "record: Segment release for"
		}
		return "record: Segment adopt"
	case *protocol.Seal:
		return fmt.Sprintf("record: Seal level %d", b.Level)
	case *protocol.Keep:
		if b.Groups == 0 {
			return "record: Keep of the ledger alone"
		}
	}
	return "record: " + strings.TrimPrefix(fmt.Sprintf("%T", b), "*protocol.")
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
