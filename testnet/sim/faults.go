package sim

import (
	"fmt"
	"time"

	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/compute-mesh/mesh/protocol/insecure"
)

// faultsDrawn draws the classes of faults that a run has, then when each strikes.
func (c *chaos) faultsDrawn() {
	if c.one(8) {
		return // a run without any
	}
	if c.half() {
		c.net.notice = time.Duration(c.dice.IntN(10_000)) * time.Millisecond
	}
	for _, class := range []func(){
		c.crashes, c.partitions, c.oneWays, c.swizzle, c.slowLinks, c.massFailure, c.churn, c.suspends, c.leaves, c.strangers, c.compactions, c.goneForGood, c.claims,
	} {
		if c.one(3) {
			c.calm = false
			class()
		}
	}
}

// moment is a time in the storm.
func (c *chaos) moment() time.Duration { return time.Duration(c.dice.Int64N(int64(stormTime))) }

// spell is how long a fault lasts, short ones more often.
func (c *chaos) spell() time.Duration {
	return time.Duration(100+c.dice.IntN(100+c.dice.IntN(15_000))) * time.Millisecond
}

func (c *chaos) peer() *Peer { return c.Peers[c.dice.IntN(len(c.Peers))] }

// crashes kills peers, cuts their power, or has them crash in the middle of their effects.
func (c *chaos) crashes() {
	for range 1 + c.dice.IntN(2*len(c.Peers)) {
		p, spell, effects := c.peer(), c.spell(), 1+c.dice.IntN(40)
		strike := []func(){p.Kill, p.CutPower, func() { p.DoomAfter(effects) }}[c.dice.IntN(3)]
		at := c.moment()
		c.After(at, strike)
		c.After(at+spell, func() {
			if p != c.gone {
				p.Restart()
			}
		})
	}
}

func (c *chaos) partitions() {
	for range 1 + c.dice.IntN(3) {
		c.Counts["fault: partition"]++
		sides := make([]int, len(c.Peers))
		n := 2 + c.dice.IntN(2)
		for i := range sides {
			sides[i] = c.dice.IntN(n)
		}
		at := c.moment()
		c.After(at, func() { c.Partition(func(i int) int { return sides[i] }) })
		c.After(min(at+c.spell(), stormTime), func() { c.Partition(nil) })
	}
}

func (c *chaos) oneWays() {
	for range 1 + c.dice.IntN(2*len(c.Peers)) {
		c.Counts["fault: one-way link"]++
		link := [2]int{c.peer().Index, c.peer().Index}
		at := c.moment()
		c.After(at, func() { c.net.oneWay[link] = true })
		c.After(min(at+c.spell(), stormTime), func() { delete(c.net.oneWay, link) })
	}
}

// swizzle holds back the traffic of one peer after another, and lets it go in another order.
func (c *chaos) swizzle() {
	for range 1 + c.dice.IntN(3) {
		c.Counts["fault: swizzle"]++
		at := c.moment()
		until := c.dice.Perm(len(c.Peers))
		for k, i := range c.dice.Perm(len(c.Peers))[:1+c.dice.IntN(len(c.Peers))] {
			c.After(at+time.Duration(k)*300*time.Millisecond, func() {
				c.net.clogs[i] = c.now + 3*time.Second + time.Duration(until[i])*200*time.Millisecond
			})
		}
	}
}

func (c *chaos) slowLinks() {
	for range 1 + c.dice.IntN(4) {
		c.Counts["fault: slow link"]++
		i, lag := c.peer().Index, time.Duration(c.dice.IntN(1500))*time.Millisecond
		c.After(c.moment(), func() { c.net.lag[i] = lag })
	}
	c.Counts["fault: slow peer"]++
	slow := c.peer().Index
	old := c.cfg.Speed
	c.cfg.Speed = func(i int) int {
		if i == slow && c.now < stormTime {
			return 20
		}
		return old(i)
	}
}

// massFailure takes many peers, or all, at once; they come back at once or one by one.
func (c *chaos) massFailure() {
	at, all, storm := c.moment(), c.half(), c.half()
	c.Counts["fault: mass failure"]++
	if all {
		c.Counts["fault: all at once"]++
	}
	for _, p := range c.Peers {
		if all || c.half() {
			c.After(at+time.Duration(c.dice.IntN(100))*time.Millisecond, p.CutPower)
			back := at + 3*time.Second
			if !storm {
				back += c.spell()
			}
			c.After(back, func() {
				if p != c.gone {
					p.Restart()
				}
			})
		}
	}
}

// churn has a peer go and another come, again and again.
func (c *chaos) churn() {
	every := time.Duration(500+c.dice.IntN(3000)) * time.Millisecond
	for at := every; at < stormTime; at += every {
		c.Counts["fault: churn"]++
		out, in := c.peer(), c.peer()
		c.After(at, out.CutPower)
		c.After(at, func() {
			if in != c.gone {
				in.Restart()
			}
		})
	}
}

func (c *chaos) suspends() {
	for range 1 + c.dice.IntN(5) {
		p, d := c.peer(), c.spell()
		at := min(c.moment(), stormTime-d)
		c.After(at, func() { p.Suspend(d) })
	}
}

// leaves has peers go in good order and come back later.
func (c *chaos) leaves() {
	for range 1 + c.dice.IntN(3) {
		p := c.peer()
		at := min(c.moment(), stormTime-6*time.Second)
		c.After(at, func() {
			if p.up {
				c.Counts["fault: left"]++
				p.step(market.Leaving{})
				life := p.life
				c.After(5*time.Second, func() {
					if p.life == life {
						p.Kill()
					}
				})
			}
		})
	}
}

// compactions have peers write their journals anew.
func (c *chaos) compactions() {
	for range len(c.Peers) {
		p := c.peer()
		c.After(c.moment(), func() {
			if p.up {
				c.Counts["journal: compacted"]++
				p.disk.compact(p.machine.Entries())
			}
		})
	}
}

// goneForGood takes a submitter away one moment after its jobs are accepted.
func (c *chaos) goneForGood() {
	victim := c.jobs[0].at
	c.never = victim
	var watch func()
	watch = func() {
		if !victim.up {
			c.After(100*time.Millisecond, watch)
			return
		}
		for _, j := range c.jobs {
			if j.at != victim {
				continue
			}
			if v, ok := victim.View(j.id); j.id == "" || !ok || !v.Accepted {
				c.After(100*time.Millisecond, watch)
				return
			}
		}
		c.Counts["fault: submitter gone"]++
		c.gone = victim
		victim.CutPower()
	}
	c.After(0, watch)
}

// claims have a member claim tasks at the highest epoch there is, and go for a while: only a
// new life frees them.
func (c *chaos) claims() {
	p, spell := c.peer(), c.spell()
	lo := protocol.TaskIndex(c.dice.IntN(20))
	at := c.moment()
	c.After(at, func() {
		signed, ok := c.World.jobs[c.jobs[0].id]
		if !p.up || !ok {
			return
		}
		rec, err := protocol.SignRecord(p.signer, &protocol.Segment{
			StageRef: protocol.StageRef{Job: signed.ID, Key: signed.InputKey(0, nil)}, Range: protocol.Range{Lo: lo, Hi: lo + 10},
			Epoch: protocol.MaxEpoch, Holder: p.ID(), Cause: protocol.CauseAdopt,
		})
		if err != nil {
			c.violate("sim", "a claim: %w", err)
			return
		}
		c.Counts["fault: highest epoch claimed"]++
		for _, q := range c.Peers {
			if q != p && q.up {
				q.step(market.Received{From: p.ID(), Message: &protocol.News{Job: signed.ID, Records: []protocol.Record{rec}}})
			}
		}
		p.CutPower()
	})
	c.After(at+20*time.Second+spell, func() { // by then it is missed
		if p != c.gone {
			p.Restart()
		}
	})
}

// strangers have somebody without authority say things.
func (c *chaos) strangers() {
	liar := insecure.NewSigner(1 << 32)
	c.inv.strangers[liar.ID()] = true
	for n := range 20 {
		p, kind := c.peer(), c.dice.IntN(5)
		if kind == 4 && n%2 == 0 {
			kind = 5
		}
		c.After(c.moment(), func() {
			j := c.jobs[0]
			signed, ok := c.World.jobs[j.id]
			if !p.up || !ok {
				return
			}
			ref := protocol.StageRef{Job: j.id, Key: signed.InputKey(0, nil)}
			var body protocol.Body
			switch kind {
			case 0:
				body = &protocol.Control{Job: j.id, Sequence: 1 << 30, Verb: protocol.VerbCancel}
			case 1:
				body = &protocol.Seal{StageRef: ref, Root: Program("lie").Root, Keep: protocol.Hash{1}, Time: 1}
			case 2:
				body = &protocol.Segment{StageRef: ref, Range: protocol.Range{Hi: 3}, Epoch: 9, Cause: protocol.CauseReleaseFor, Replaced: p.ID(), Keep: protocol.Hash{1}}
			case 3:
				body = &protocol.Segment{StageRef: ref, Life: 5, Range: protocol.Range{Hi: 3}, Epoch: 9, Holder: liar.ID(), Cause: protocol.CauseAdopt}
			case 4:
				body = &protocol.Failed{StageRef: ref, Generation: 1 << 20, Attempt: 9, Reason: protocol.ReasonExit}
			case 5:
				page := Program("lie").Root
				rc, _ := protocol.SignReceipt(liar, protocol.Receipt{StageRef: ref, Range: protocol.Range{Hi: 3}, Page: page, Keep: protocol.Hash{1}})
				body = &protocol.Done{StageRef: ref, Range: protocol.Range{Hi: 3}, Page: page, Receipts: []protocol.SignedReceipt{rc}}
			}
			rec, err := protocol.SignRecord(liar, body)
			if err != nil {
				c.violate("sim", "a lie: %w", err)
				return
			}
			c.Counts["fault: stranger"]++
			p.step(market.Received{From: liar.ID(), Message: &protocol.News{Job: j.id, Records: []protocol.Record{rec}}})
		})
	}
}

func viewText(p *Peer, v *market.View) string {
	text := fmt.Sprintf("peer %d: %s %q, %d keepers, %d live, %d members", p.Index, stateName(v.State), v.Reason, len(v.Keepers), len(v.Live), v.Members)
	for i := range v.Stages {
		text += fmt.Sprintf("; stage %d: %+v", i, v.Stages[i])
	}
	return text
}
