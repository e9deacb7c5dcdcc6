package sim

import (
	"errors"
	"time"

	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/compute-mesh/mesh/protocol/insecure"
)

// Peer is a simulated meshd.
type Peer struct {
	w      *World
	Index  int
	signer insecure.Signer
	disk   disk
	links  map[int]bool // by peer: connected, as this one sees it; not there: never was

	up          bool
	asleep      bool // suspended: not up, and not down
	life        int  // grows with every crash: what was started before it is void
	incarnation uint64
	machine     *market.Machine
	runs        map[market.RunID]bool
	began       map[market.RunID]market.DiedTask // those of runs that have a slot
	died        []market.DiedTask                // what ran when it last went down
	queue       []market.Run
	slots       int
	wake        time.Duration // local time
	announced   []protocol.Announcement
	owed        []string // pages that must be durable by the next sync
	busy        bool     // inside step: effects are carried out by the outermost
	messages    int      // sent by it and to it
	doomed      int      // effects until it crashes; 0: it does not

	// Its clocks.
	started time.Duration // world time at which the monotonic clock was zero
	base    time.Duration // and what it showed then
	drift   int           // per mille that it runs fast
	skew    time.Duration // of the wall clock
}

// ID is the peer's.
func (p *Peer) ID() protocol.PeerID { return p.signer.ID() }

// Up tells whether the peer runs.
func (p *Peer) Up() bool { return p.up }

// View is what the peer knows of a job.
func (p *Peer) View(id protocol.JobID) (market.View, bool) { return p.machine.View(id) }

func (p *Peer) instant() market.Instant {
	return market.Instant{Mono: p.local(p.w.now), Unix: epoch + (p.w.now + p.skew).Milliseconds()}
}

// local is the monotonic clock at a time of the world.
func (p *Peer) local(at time.Duration) time.Duration {
	return p.base + (at-p.started)*time.Duration(1000+p.drift)/1000
}

// global is the first time of the world at which the monotonic clock shows at.
func (p *Peer) global(at time.Duration) time.Duration {
	rate := time.Duration(1000 + p.drift)
	return p.started + ((at-p.base)*1000+rate-1)/rate
}

// start makes the machine from the journal.
func (p *Peer) start() {
	w := p.w
	p.disk.keep = p.keepOf
	p.started, p.base = w.now, 0
	if w.cfg.Drift > 0 {
		p.drift = w.rng.IntN(2*w.cfg.Drift+1) - w.cfg.Drift
		p.base = w.between(0, time.Hour)
		w.Counts["fault: drifting clock"]++
	}
	if w.cfg.Skew > 0 {
		p.skew = w.between(-w.cfg.Skew, w.cfg.Skew)
		w.Counts["fault: wrong wall clock"]++
	}
	cfg := market.DefaultConfig()
	cfg.Signer, cfg.Codec = p.signer, protocol.Codec{Verifier: insecure.Verifier{}}
	cfg.Mesh, cfg.Seed = "sim", w.cfg.Seed<<16+uint64(p.Index)
	at := p.instant()
	p.incarnation = max(p.incarnation+1, uint64(at.Unix))
	cfg.Incarnation = p.incarnation
	cfg.Slots, cfg.Memory = w.cfg.Slots, 16<<30
	if w.cfg.Idle[p.Index] {
		cfg.Slots = 0
	}
	if w.cfg.Market != nil {
		w.cfg.Market(&cfg)
	}
	p.slots = cfg.Slots
	m, err := market.New(cfg, at, p.disk.journal)
	if err != nil {
		w.violate("start", "peer %d: %w", p.Index, err)
		return
	}
	p.machine, p.up, p.wake, p.doomed = m, true, 0, 0
	p.runs, p.queue, p.owed = map[market.RunID]bool{}, nil, nil
	p.began = map[market.RunID]market.DiedTask{}
	clear(p.links)
	p.step(market.Died{Tasks: p.died})
}

// Kill is kill -9: the others hear of it at once, and what was written is there.
func (p *Peer) Kill() {
	if p.up {
		p.w.Counts["fault: kill"]++
		p.disk.wanted = true
		p.disk.sync()
		p.down(0)
	}
}

// CutPower stops the peer: what was not synced may be gone, and who is connected hears
// of it only after a while.
func (p *Peer) CutPower() {
	if !p.up {
		return
	}
	w := p.w
	w.Counts["fault: power cut"]++
	entries, blocks := p.disk.crash(w.rng)
	w.Counts["fault: entries lost with the tail"] += entries
	w.Counts["fault: blocks lost"] += blocks
	p.down(w.net.notice)
}

// Rollback stops the peer and brings back an older journal.
func (p *Peer) Rollback(k int) {
	if p.up {
		p.disk.rollback(k)
		p.down(0)
	}
}

func (p *Peer) down(notice time.Duration) {
	p.w.note("crash", uint64(p.Index), uint64(len(p.disk.journal)))
	p.up = false
	p.life++
	p.died = nil
	for _, id := range sortedKeys(p.began) {
		p.died = append(p.died, p.began[id])
	}
	p.queue = nil // who called what has crashed goes on, and finds nothing to start
	p.w.look = true
	p.w.inv.crashed(p)
	for _, q := range p.w.near(p) {
		if q.up && q.links[p.Index] {
			life := p.life
			p.w.After(p.w.between(0, notice), func() {
				if q.links[p.Index] && p.life == life {
					q.look(p)
				}
			})
		}
	}
}

// Restart brings a crashed peer back.
func (p *Peer) Restart() {
	if p.up || p.asleep {
		return
	}
	p.w.Counts["fault: restart"]++
	p.w.note("restart", uint64(p.Index), 0)
	p.start()
	p.w.look = true
	p.meet()
}

// DoomAfter makes the peer lose its power after so many more effects.
func (p *Peer) DoomAfter(effects int) { p.doomed = effects }

// Suspend stops the process for a while: what comes meanwhile waits, and its clock goes on.
func (p *Peer) Suspend(d time.Duration) {
	if !p.up {
		return
	}
	w := p.w
	w.Counts["fault: suspended"]++
	w.net.clogs[p.Index] = max(w.net.clogs[p.Index], w.now+d)
	p.up, p.asleep = false, true
	w.After(d, func() {
		p.up, p.asleep = true, false
		p.step(market.Gap{})
		for _, q := range w.near(p) { // some went or began anew meanwhile, and did not find this one
			if p == q {
				continue
			}
			if !p.links[q.Index] || !q.links[p.Index] {
				p.connect(q)
			}
			p.look(q)
		}
	})
}

// Order gives the machine an order of the job's owner.
func (p *Peer) Order(id protocol.JobID, sequence uint64, verb protocol.Verb) {
	rec, err := protocol.SignRecord(ownerSigner(), &protocol.Control{Job: id, Sequence: sequence, Verb: verb})
	if err != nil {
		p.w.violate("order", "%w", err)
		return
	}
	switch verb {
	case protocol.VerbCancel, protocol.VerbRemove:
		p.w.inv.cancelled[id] = true
	case protocol.VerbPause:
		p.w.inv.paused[id] = true
	}
	p.step(market.Ordered{Record: rec})
	if p.up {
		p.disk.sync() // the user is told only then
	}
}

// Cancel orders the end of a job as its owner, from this peer.
func (p *Peer) Cancel(id protocol.JobID) { p.Order(id, 1<<20, protocol.VerbCancel) }

// step gives the machine an input and carries out what comes of it.
func (p *Peer) step(in market.Input) {
	if !p.up {
		return
	}
	p.w.Steps++
	p.w.Counts[inputName(in)]++
	err := p.machine.Step(p.instant(), in)
	if err != nil && !errors.Is(err, market.ErrExpired) && !errors.Is(err, market.ErrEnded) && !errors.Is(err, market.ErrNoJob) {
		p.w.violate("step", "peer %d: %T: %w", p.Index, in, err)
	}
	if !p.busy {
		p.carry()
		p.w.inv.stepped(p)
	}
}

// later does something with this life of the peer, once it is awake.
func (p *Peer) later(d time.Duration, do func()) {
	life := p.life
	p.w.After(d, func() { p.awake(life, do) })
}

func (p *Peer) awake(life int, do func()) {
	switch {
	case p.life != life:
	case p.up:
		do()
	case p.asleep:
		p.w.After(p.w.cfg.DelayMax+time.Millisecond, func() { p.awake(life, do) })
	}
}

func (p *Peer) alarm(at time.Duration) {
	if at == 0 || at == p.wake {
		return
	}
	p.wake = at
	p.wakeUp()
}

// wakeUp steps a Tick when the alarm is due.
func (p *Peer) wakeUp() {
	at := p.wake
	p.later(p.global(at)-p.w.now, func() {
		if p.wake == at {
			p.wake = 0
			p.step(market.Tick{})
		}
	})
}
