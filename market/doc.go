// Package market is the work-stealing bid protocol and the ledger: how the peers of a
// mesh share out a job's tasks, keep what is known of it, and agree on its results,
// with nobody in charge. docs/design.md section 5 is its specification.
//
// It is a state machine, built as etcd's raft library is: inputs in, effects out, time
// passed in. A Machine is one peer's part in all the jobs that it knows. It starts no
// goroutine and has no clock, socket, file, lock or randomness of its own: the same
// Config, the same inputs at the same instants give the same effects, byte for byte. So
// the code that runs under libp2p in node runs in testnet/sim too, for thousands of peers
// in virtual time, and a failure is replayed from its seed. TestPurity holds the source
// to it.
//
// # What it promises
//
// As long as its driver does its duties (below):
//
//   - What it tells another peer refers only to what the driver has made durable first.
//   - Each result that stands for a task has a keeper's receipt, and a task that is done
//     stays done under its input key until a keeper reopens it.
//   - Keepers that exchange records come to equal visible states, in whatever order and
//     however often the records came.
//   - Records, messages and announcements from peers cause neither a panic nor state
//     without a bound (Limits).
//   - Every wait has an end: no message is needed for things to go on, only to go on soon.
//
// # What it does not do
//
// It does not talk to peers, fetch, store or check chunks, run tasks, verify signatures of
// what comes in (records in a message have been opened by protocol; receipts too), sign
// announcements, or look for peers. It does not decide what a volunteer lends: Slots and
// Memory come in with the Config. It does not hold back what goes to a peer that is slow:
// the driver bounds its queues, and may lose whole messages.
//
// A Keep with chunk group 0 is a keeper's: ledger, programs, files, results and a part of the
// input. One for the ledger alone is that of a last survivor, and of a peer for as long as it
// still fetches the chunks. One of other groups is for input, and its signer no keeper.
//
// # Use
//
// One goroutine owns the machine:
//
//	m, err := market.New(config, now(), entries) // of the journal; none for a new peer
//	carry := func() {
//		for {
//			e := m.Ready()
//			timer.Reset(e.Wake) // 0: no timer
//			if e.Empty() {
//				return
//			}
//			... the duties, in order ...
//			m.Advance(e)
//		}
//	}
//	carry()
//	for in := range inputs {
//		if err := m.Step(now(), in); err != nil {
//			log(err) // a fault of the input: the state is as it was
//		}
//		carry()
//	}
//
// Inputs are Submit, Ordered, Leaving, HandOver (what a user of this peer wants), Died (what ran when
// meshd died, the first input after a start), Damaged (chunks that were kept are bad), Announced,
// Received, PeerUp, PeerDown (the network), Fetched, Ended, Probed (answers to effects),
// Checkpointed (a running task has saved its state), Tick and Gap (time). Instants never go back. A Tick that comes early, late or twice does no harm.
//
// Jobs, View, Records, Digest, Pages, Running, Busy, Announced and Entries read the state between
// two Steps. They have no effects.
//
// # The driver's duties
//
// For the Effects of each Ready, before those of the next, in this order:
//
//  1. Blocks go into the store.
//  2. Persist is appended to the journal, in order, and made durable. Where Sync is set the
//     store is made durable as well: what these Effects send says that chunks are safe, and
//     those that earlier Fetched or Ended told of are among them. Many Ready may share one
//     fsync (group commit), but what a Ready sends waits for its own.
//  3. Then Send goes out: to one peer in order, each message whole or not at all. A message
//     to a peer that can't be reached is dropped.
//  4. Announce: addresses are added, the announcement is signed, published by gossip, given
//     back by Step(Announced), and a provider record for the job's CID is written.
//  5. Run and Stop go to the sandbox. What runs is noted so that it outlives the driver's
//     death, for Died. Runs start in the order given as slots come free: a
//     few short ones are handed out ahead of the slots. Prefetch may be used or not.
//  6. Fetch and Probe are begun. Each Fetch is answered by exactly one Fetched, each Run by
//     exactly one Ended, stopped ones too, in any order and however long it takes. A
//     Probed is for whoever wants to know: an inquiry goes on without it.
//  7. Drop lets go of chunks that were kept for a job: of one file, or of all.
//  8. Changed wakes who waits for a job's View.
//
// Persist and Send are apart for one reason, which is invariant I8: a peer that has said
// something and then forgets it would contradict itself after a restart. Run and Fetch do
// not wait for the disk: that a task was run for nothing harms nobody.
//
// The journal is the Entries in order; Entries gives a shorter one that brings back the
// same state. After a crash New takes what was durable: the newest entries may be missing,
// those in between may not. A Config.Incarnation above all earlier ones keeps sequence
// numbers growing. A hole in time that the driver sees (the machine slept, the process was
// stopped) is stepped as Gap.
//
// # Roles
//
// A peer may have all of them in one job, and others in another.
//
// The submitter's peer holds all tasks at epoch 0 and is the first keeper: it signs its Keep
// at Submit. It has no other privilege, and may be gone as soon as the job is accepted.
//
// A keeper has signed a Keep. It has the ledger, exchanges it with the other keepers
// (records as they come, a digest every Exchange and, where it differs, a way down the tree
// to the records that differ), stores pages with their outputs and gives
// receipts, answers who looks for work, watches holders that are its to judge, releases for
// those that are gone, and seals blocks. The first live keeper invites others while they
// are too few, of every chunk group.
//
// Who keeps groups of the input alone (groups.go) has nothing to do but to have them. It calls
// the keepers now and then, so that it hears of the job's end.
//
// A member takes part without keeping. It knows the manifest, the control records, the
// Keeps, and the segments that concern it. It beats to its links: the first two live keepers
// in the rendezvous order of job and member. The same two judge whether it is gone.
//
// A holder is who should run a range, as far as is known; a worker is who ran it. Neither
// needs leave: a result counts whoever it is from.
//
// Rendezvous order (Thaler, Ravishankar 1998) spreads each duty: who does it first, and,
// after a Step of waiting each, who does it when the first does not.
//
// # The life of a range
//
// The state of a task is a cell of the ledger: its life and, in it, done, or the triple
// (held, failures, checkpoint). Equal neighbours share a span, so that a stage costs what
// its segments and open blocks do, not its tasks.
//
//	                    life 0, epoch 0
//	                          |
//	                          v                bid, then grant: epoch + 1
//	 +----------------> held by a peer --------------------------+
//	 |                   |    |    |  ^                          |
//	 |      release, or  |    |    |  +--------------------------+
//	 |      release for  |    |    |
//	 |      another      |    |    |  page, receipts of keepers: Done
//	 |      (epoch + 1)  v    |    +---------------------------------+
//	 |                  no    |                                      |
//	 +---------------- holder |  from any member, at any epoch       v
//	adopt: epoch + 1     |    +---------------------------------->  done
//	                     |                                           |
//	                     +-----------------------------------------> |
//	                                                                 |
//	                   all of the block done, pages with R keepers   v
//	                                                               sealed
//	                                                                 |
//	   Reopen by a keeper: life + 1, no holder  <--------------------+
//
// The parts of it in code: stand.go serves bids, seek.go makes them, and hints.go tells
// where to; share.go runs what is held; backup.go gives copies of what would end last;
// pages.go takes results to Done; store.go is a keeper's part in that; seal.go seals;
// remake.go makes again what a seal names; lost.go reopens what nobody serves any more, and
// damage.go brings back what a keeper's disk has spoilt; keeper.go invites and is invited,
// groups.go says whom to what; over.go hears that others have let go of a job; unkeep.go
// takes Keeps back, handover.go those of a peer without room; exchange.go and tree.go are
// how keepers compare their ledgers, news.go what is told to whom and when; watch.go
// releases for another; adopt.go adopts, offered.go is who was told what may be adopted;
// checkpoint.go takes states to Checkpoint records; leave.go hands back, makes last
// survivors keepers and lets go; stage.go and ledger.go are the join; swarm.go ties a job's
// parts together.
//
// deaths.go sees to it that a task which kills its host fails as any other.
//
// A failed attempt is a Failed record and a release. A task whose failures in the owner's
// newest generation, added up over peers, are more than the manifest's Retries is
// exhausted: the job has failed or, with KeepGoing, will have when all the others are done.
//
// When all tasks of a stage are sealed, its top seal's root gives the input key of the
// stages that read it, and they open. All state is under that key: if another top seal
// wins, what was computed from the loser goes as a whole. Where the same root comes back
// with a third seal, it may have to be computed again.
//
// # Invariants
//
// As numbered in docs/design.md section 5.7, with where they come from here:
//
//   - I1 A job is running, failed with a reason, done or cancelled at each peer that has a
//     part in it: ledger.state derives it from the records alone.
//   - I2 Each open task has a holder that beats, or none and is offered for adoption: every
//     keeper looks at all holders and all free ranges at each tick (watchTick). The visible
//     (life, epoch) of a task only grow.
//   - I3 done absorbs; between two results, and between two seals, the join chooses by a
//     hash that neither signer can choose, so all choose alike.
//   - I4 Without failures a task runs once: a grant moves the range before the bidder hears
//     of it, and takes no task that is engaged (running, finished, or in a page).
//   - I5 The join is commutative, associative and idempotent: what is valid follows from a
//     record's bytes, the manifest and the records it names. What comes before what it names
//     is refused with errUnknown, and exchange offers it again.
//   - I6 Limits.
//   - I7 An ended job has no ticks and runs nothing; it sends answers, and a digest to a
//     keeper that comes back. Without jobs a peer asks one neighbour for open jobs every
//     Poll.
//   - I8 Persist before Send; no input changes state before its signer's authority is
//     checked (ledger.check).
//
// # Timers
//
// One alarm per machine (Effects.Wake), the earliest due of all jobs. At it each job looks
// at everything that waits: levels, not events, so a wake-up that was lost costs time alone.
// The figures are Config's.
//
//	Beat           a member beats; Missed of them missing, and a quarter, raise suspicion
//	Opinion        a suspecting keeper waits for the other judge's view
//	Step, Steps    between two candidates for a duty; the k-th waits k Steps (to adopt, not rounded, at most twice Steps)
//	Gather         bids are collected after the first, so that it does not get half
//	BidTime        a bid stands; the bidder gives it up a Step later
//	AskMin, AskMax between two requests for work that bring none, doubling
//	AskIdle        between two that are told of nothing: the keeper tells when there is something
//	PageTime       a finished result waits for others while there is more to run, longer in a large swarm
//	Lead           work queued ahead of a slot
//	ReceiptWait    a page waits for more than one receipt
//	KeepWait       an invited keeper, or one asked for a receipt, is silent; then the next
//	Idle           a holder shows no progress, at least; then it is released
//	Lost           nobody serves results; then their tasks run again
//	Orphan         a member reaches no keeper, until it becomes one; a task that may kill its host waits
//	               for its holder's word, once that is gone
//	Hysteresis     keepers of a group of an accepted job must be too few before one is invited, or too many before one goes
//	Exchange       between two digests to another keeper; eight times that while the ledger changes
//	NewsTime       between two News to a neighbour, beyond NewsBurst of them, that nobody waits for;
//	               longer in a large swarm
//	StoredTime     a keeper's word of what it has stored waits for more of a block that is not complete
//	Listen         at most, after a start or a gap, before the peer acts unheard
//	Reannounce     keepers share one announcement of an open job; who keeps input calls them
//	Poll           a peer without work asks a neighbour for open jobs
//
// After a start or a Gap a peer listens: it runs what it holds and takes results to pages,
// but does not grant, adopt, release others, invite or seal before it has heard a keeper,
// or Listen has passed, or there is no other keeper to hear.
//
// Wall time (Instant.Unix) dates seals and announcements and ends jobs that expired. Nothing
// else reads it.
//
// # Limits
//
// Every table has a bound, named where it is kept: jobs (MaxJobs), those let go of (MaxFinals), announcements
// (MaxAnnounced), and for each job keepers' records (MaxKeeps), members (MaxMembers), bids
// (MaxStanding), open spans of a stage (MaxSegments), records of unknown kinds (MaxOpaque), pages
// that are followed (maxUnknownPages), failing peers of a task (maxFailers), adoptions
// (maxAdoptions), tasks whose holders went (maxDeaths); beside them the programs whose pace is known (maxPaces) and the runs ahead
// of the slots (MaxQueued). What goes into one message is bounded in protocol. What is
// joined under a bound keeps the same records in whatever order they come, but for the
// last one of spans (hardSpans), which only a flood reaches.
package market
