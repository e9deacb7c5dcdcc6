package market

import (
	"errors"
	"fmt"
	"time"

	"github.com/compute-mesh/mesh/protocol"
)

// Config is what a Machine is made with. It is not changed afterwards.
type Config struct {
	// Signer makes this peer's records; it must be deterministic. Codec reads back those
	// of the journal; its zero value checks real signatures.
	Signer protocol.Signer
	Codec  protocol.Codec

	// Mesh is the mesh's name: manifests of another are refused.
	Mesh string
	// Seed draws the jitter; two peers should differ.
	Seed uint64
	// Incarnation is max(stored + 1, Unix ms at start).
	Incarnation uint64

	// Slots is how many tasks run at once; 0: this peer submits and keeps only.
	Slots int
	// Memory is lent to tasks, in bytes; a task that needs more is not taken.
	Memory uint64

	// Receipts is D: how many receipts a Done waits for. Range 1 to protocol.MaxReceipts.
	Receipts int
	// ReceiptWait is how long it waits for more than one.
	ReceiptWait time.Duration

	// Beat is the time between two beats of a member; Missed of them missing raise suspicion.
	Beat   time.Duration
	Missed int
	// Opinion is how long a keeper waits for another's view of a member it suspects.
	Opinion time.Duration
	// Step is the time between two candidates, for adopting, sealing and the like:
	// longer than a record takes to everybody. Steps bounds the k of the k-th candidate.
	Step  time.Duration
	Steps int
	// Gather is how long a holder waits for more bids after the first of an idle time,
	// so that the first bidder does not get half.
	Gather time.Duration
	// BidTime is T: how long a bid stands.
	BidTime time.Duration
	// AskMin and AskMax bound the time between two requests for work that bring none. Who
	// is told that there is nothing is told when there is, and asks again after AskIdle.
	AskMin, AskMax, AskIdle time.Duration
	// PageTime is how long a result waits for others of its page while there is more to
	// run, at least. In a swarm of n members it waits n times PageGap, so that the pages
	// that come to the keepers in a second are 1 s / PageGap whatever n is, but at most
	// PageMax: what a peer that dies has done in that time is done again.
	PageTime, PageGap, PageMax time.Duration
	// Lead is how much queued work a slot has beyond the running task, so that it never
	// waits for the loop; and how early a peer bids before it runs dry.
	Lead time.Duration
	// NewsBurst is how many News may go to a neighbour at once, and NewsTime the time in
	// which there may be one more, at least: what nobody waits for is merged beyond that. In
	// a swarm of n members that time is n times NewsGap, but at most NewsMax.
	NewsBurst                  int
	NewsTime, NewsGap, NewsMax time.Duration
	// StoredTime is how long a keeper's word that pages are stored waits for more of
	// them, while their block is not complete.
	StoredTime time.Duration
	// KeepWait is how long an invited keeper may be silent.
	KeepWait time.Duration
	// Hysteresis is how long keepers must be too few before another is invited.
	Hysteresis time.Duration
	// Exchange is the time between two digests to another keeper of a running job.
	Exchange time.Duration
	// Listen bounds how long a peer listens after a start or a gap.
	Listen time.Duration
	// Idle is how long a holder may show no progress, at least, before its range is released.
	Idle time.Duration
	// Lost is how long nobody may serve results before their tasks run again.
	Lost time.Duration
	// Orphan is how long a member may reach no keeper before it becomes one, and how long a
	// task that may kill its host waits for the word of a holder that is gone.
	Orphan time.Duration
	// Reannounce is the time between two announcements of an open job by its keepers.
	Reannounce time.Duration
	// Poll is the time between two requests for open jobs to one neighbour.
	Poll time.Duration
}

// DefaultConfig has every figure at its default; Signer, Mesh, Seed,
// Incarnation, Slots and Memory are the caller's.
func DefaultConfig() Config {
	return Config{
		Receipts: 2, ReceiptWait: 30 * time.Second,
		Beat: time.Second, Missed: 3, Opinion: 500 * time.Millisecond,
		Step: 250 * time.Millisecond, Steps: 8,
		Gather: 15 * time.Millisecond, BidTime: 2 * time.Second,
		AskMin: 100 * time.Millisecond, AskMax: 4 * time.Second, AskIdle: 15 * time.Second,
		PageTime: 200 * time.Millisecond, PageGap: 100 * time.Millisecond, PageMax: 2 * time.Minute, Lead: 20 * time.Millisecond,
		NewsBurst: 64, NewsTime: 500 * time.Millisecond, NewsGap: 5 * time.Millisecond, NewsMax: 5 * time.Second, StoredTime: 10 * time.Second,
		KeepWait: 5 * time.Second, Hysteresis: 30 * time.Second,
		Exchange: 2 * time.Second, Listen: 30 * time.Second, Idle: time.Minute, Lost: 10 * time.Minute, Orphan: time.Minute,
		Reannounce: time.Minute, Poll: 15 * time.Second,
	}
}

// Validate reports every field that is out of range.
func (c *Config) Validate() error {
	var errs []error
	bad := func(ok bool, field, want string) {
		if !ok {
			errs = append(errs, fmt.Errorf("market: config %s: want %s", field, want))
		}
	}
	bad(c.Signer != nil, "Signer", "one")
	bad(c.Slots >= 0 && c.Slots <= MaxSlots, "Slots", fmt.Sprintf("0 to %d", MaxSlots))
	bad(c.Receipts >= 1 && c.Receipts <= protocol.MaxReceipts, "Receipts", fmt.Sprintf("1 to %d", protocol.MaxReceipts))
	bad(c.Missed >= 1, "Missed", "at least 1")
	bad(c.Steps >= 1, "Steps", "at least 1")
	bad(c.NewsBurst >= 1, "NewsBurst", "at least 1")
	for _, d := range []struct {
		name string
		d    time.Duration
	}{
		{"ReceiptWait", c.ReceiptWait}, {"Beat", c.Beat}, {"Opinion", c.Opinion}, {"Step", c.Step},
		{"BidTime", c.BidTime}, {"AskMin", c.AskMin}, {"AskMax", c.AskMax}, {"AskIdle", c.AskIdle}, {"PageTime", c.PageTime},
		{"PageMax", c.PageMax}, {"NewsTime", c.NewsTime}, {"NewsMax", c.NewsMax}, {"StoredTime", c.StoredTime},
		{"KeepWait", c.KeepWait}, {"Exchange", c.Exchange}, {"Listen", c.Listen}, {"Idle", c.Idle}, {"Lost", c.Lost},
		{"Orphan", c.Orphan}, {"Reannounce", c.Reannounce}, {"Poll", c.Poll},
	} {
		bad(d.d > 0, d.name, "more than 0")
	}
	bad(c.Gather >= 0, "Gather", "at least 0")
	bad(c.Lead >= 0, "Lead", "at least 0")
	bad(c.PageGap >= 0, "PageGap", "at least 0")
	bad(c.NewsGap >= 0, "NewsGap", "at least 0")
	bad(c.Hysteresis >= 0, "Hysteresis", "at least 0")
	return errors.Join(errs...)
}

// Limits of what the machine holds, whatever its peers say.
const (
	// MaxSlots bounds Config.Slots: more tasks at once than a large machine has threads.
	MaxSlots = 1024
	// MaxAnnounced bounds the table of open announcements: 1 KiB each, so 1 MiB.
	MaxAnnounced = 1024
	// MaxJobs bounds the jobs that a peer is a member or keeper of.
	MaxJobs = 4096
	// MaxFinals bounds the final states of jobs that were let go of, at most 600 bytes each
	// with the owner's order: 40 MiB.
	MaxFinals = 16 * MaxJobs
	// MaxKeeps bounds the Keeps of a job, 250 bytes each: 64 chunk groups with three peers
	// each, all replaced four times, and some more.
	MaxKeeps = 1024
	// MaxMembers bounds the members that a keeper follows, some 500 bytes each: 8 MiB. Each of the R+1
	// keepers of a job follows two in R+1 of them, so that a job has 32,768 workers with R = 3.
	MaxMembers = 16384
	// MaxStanding bounds the bids that stand at a holder, for one job.
	MaxStanding = 1024
	// MaxSegments bounds the spans of a stage's ledger that are not done: a grant that would
	// pass it is refused.
	MaxSegments = 16384
	// MaxQueued bounds the runs given out ahead of a slot.
	MaxQueued = 64
	// MaxTold bounds the neighbours that are told an owner's order at once: as many as a
	// peer keeps close.
	MaxTold = 64
	// MaxOpaque bounds the records of unknown kinds kept for a job.
	MaxOpaque = 64
	// PageTasks bounds the results of a page: a block.
	PageTasks = protocol.BlockSize
	// PageBytes is the size, in bytes, at which a page is flushed: half of what one may
	// hold, so that it fits with a last result.
	PageBytes = protocol.MaxPage / 2
)
