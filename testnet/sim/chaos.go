package sim

import (
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
)

// Outcome is what came of one seed.
type Outcome struct {
	Seed       uint64
	Trace      protocol.Hash
	Violations []error
	Counts     Counts
	Steps      int
	Took       time.Duration // virtual
}

// How long faults last, and after the world is healed each job may take to end.
const (
	stormTime = 30 * time.Second
	healTime  = 10 * time.Minute
	settling  = 30 * time.Second
	quietTime = 30 * time.Second
	pauseTime = 90 * time.Second // after the storm: longer than a slow peer runs its last task

	// idleTime is how long nobody may run a task of a job that runs, once the world is healed:
	// a peer listens for 30 s, a survivor waits a minute for keepers, a page half of one for
	// receipts, and a holder is missed and replaced in 10 s.
	idleTime = 150 * time.Second
)

// chaos is one seed's run: a mesh, its jobs, and what befalls them.
type chaos struct {
	*World
	dice    *rand.Rand // draws the plan; the world's own draws delays
	inputs  *rand.Rand // draws the jobs' inputs
	jobs    []*trial
	calm    bool  // no fault was drawn
	gone    *Peer // for good
	never   *Peer // who will be: its orders may be lost with it
	fails   bool  // the program fails while this is so
	mayFail bool  // a peer fails what others would not
}

// trial is a job and what is to become of it.
type trial struct {
	at     *Peer
	change func(*job.Spec)
	id     protocol.JobID
	want   protocol.JobState
	orders uint64
	paused bool // an order to pause was given
}

// Chaos draws a mesh, jobs and faults from a seed, heals everything, and checks that each
// job ends as it must. The classes of faults are drawn first, each with even chances, so
// that some runs are without it; then their rates.
func Chaos(seed uint64, peers int) Outcome {
	c := &chaos{dice: rand.New(rand.NewPCG(seed, 1)), inputs: rand.New(rand.NewPCG(seed, 2)), calm: true}
	c.World = New(c.config(seed, peers))
	c.jobsDrawn()
	c.faultsDrawn()
	c.After(stormTime, c.heal)
	c.Run(stormTime+time.Second, nil)
	for _, j := range c.jobs {
		c.ends(j)
	}
	c.Run(c.now+settling, nil)
	for _, j := range c.jobs {
		c.Verify(j.id, j.want)
		if j.want == protocol.JobDone && !c.inv.retired[j.id] {
			c.VerifyCopies(j.id)
			c.VerifyGroups(j.id)
		}
	}
	if c.calm {
		c.VerifyOnce()
	}
	c.VerifyQuiet(quietTime)
	return Outcome{seed, c.Trace(), c.Violations, c.Counts, c.Steps, c.now}
}

// half is an even chance.
func (c *chaos) half() bool { return c.dice.IntN(2) == 0 }

// one is a chance of one in n.
func (c *chaos) one(n int) bool { return c.dice.IntN(n) == 0 }

// rate is 0 in half of the runs and up to most in the others, small rates more often.
func (c *chaos) rate(most int) int {
	if c.half() {
		return 0
	}
	c.calm = false
	return 1 + c.dice.IntN(1+c.dice.IntN(most))
}

func (c *chaos) config(seed uint64, peers int) Config {
	cfg := Config{
		Seed: seed, Peers: peers, Slots: 1 + c.dice.IntN(2), Idle: map[int]bool{}, Room: map[int]int{},
		DelayMin: 200 * time.Microsecond, DelayMax: time.Duration(1+c.dice.IntN(1+c.dice.IntN(150))) * time.Millisecond,
	}
	if c.one(8) {
		cfg.NoGossip = true
	}
	if c.one(4) {
		cfg.Idle[c.dice.IntN(peers)] = true
	}
	if c.one(3) {
		return cfg // the network and the disks do their best
	}
	cfg.Loss, cfg.Duplicate = c.rate(150), c.rate(100)
	if c.half() {
		cfg.Lazy = 1000
	}
	if c.one(3) {
		cfg.Drift, c.calm = 200, false
	}
	if c.one(3) {
		cfg.Skew = time.Hour
	}
	return cfg
}

// jobsDrawn submits one job or two.
func (c *chaos) jobsDrawn() {
	mean := time.Duration(20+c.dice.IntN(500)) * time.Millisecond
	c.cfg.Task = func(s protocol.StageIndex, t protocol.TaskIndex) time.Duration {
		return mean/2 + mean*time.Duration((uint64(t)*2654435761+uint64(s))%1000)/1000
	}
	if c.one(4) {
		c.cfg.Check = max(mean/4, 100*time.Millisecond)
	}
	slow := 1 + c.dice.IntN(4)
	c.cfg.Speed = func(i int) int {
		if i%4 == slow {
			return 300
		}
		return 1000
	}
	for n := 1 + c.dice.IntN(5)/4; n > 0; n-- {
		j := &trial{at: c.Peers[c.dice.IntN(len(c.Peers))], want: protocol.JobDone}
		tasks, reduce, fanIn := uint64(20+c.dice.IntN(400)), c.half(), uint64(c.dice.IntN(2)*4)
		if c.one(16) && mean < 100*time.Millisecond {
			tasks += 1100
		}
		replicas, priority := 1+c.dice.IntN(3), int32(c.dice.IntN(3))
		groups := c.inputDrawn()
		j.change = func(s *job.Spec) {
			s.Array, s.Replicas, s.Priority = tasks, replicas, priority
			if groups > 1 {
				withInput(tasks, groups, replicas)(s)
			}
			if reduce {
				s.FanIn, s.Reduce = fanIn, &job.Command{Program: Program("reduce.wasm")}
			}
		}
		c.jobs = append(c.jobs, j)
		c.After(time.Duration(c.dice.IntN(2000))*time.Millisecond, func() { c.submit(j) })
	}
	c.failuresDrawn()
	c.ordersDrawn()
}

// inputDrawn gives a job, one in three, an input of some chunk groups, for which some peers
// may not have the room.
func (c *chaos) inputDrawn() (groups uint64) {
	if c.inputs.IntN(3) > 0 {
		return 1
	}
	groups = 2 + c.inputs.Uint64N(11)
	if c.inputs.IntN(3) == 0 {
		for range 1 + c.inputs.IntN(2) {
			c.cfg.Room[c.inputs.IntN(len(c.Peers))] = c.inputs.IntN(int(groups))
		}
	}
	return groups
}

func (c *chaos) submit(j *trial) {
	j.at.Restart() // a user has a meshd that runs
	if !j.at.up {
		c.After(time.Second, func() { c.submit(j) })
		return
	}
	if j.id == "" {
		id, err := c.World.Submit(j.at, j.change)
		if err != nil {
			c.violate("submit", "%w", err)
		}
		j.id = id
		return
	}
	j.at.submit(c.World.jobs[j.id])
}

// failuresDrawn makes some programs fail, and some peers unable to run them.
func (c *chaos) failuresDrawn() {
	if c.one(4) {
		bad := c.dice.IntN(len(c.Peers))
		c.calm, c.mayFail = false, true // it may use up all attempts where it is cut off from the others
		c.cfg.Fail = func(p int, _ protocol.StageIndex, t protocol.TaskIndex) bool { return p == bad && t%3 == 0 }
	} else if c.one(8) {
		task := protocol.TaskIndex(c.dice.IntN(20))
		c.fails, c.calm = true, false
		c.cfg.Fail = func(_ int, s protocol.StageIndex, t protocol.TaskIndex) bool { return c.fails && s == 0 && t == task }
		for _, j := range c.jobs {
			j.want = protocol.JobFailed
		}
		if c.half() {
			c.retried()
		}
	}
	if c.one(5) {
		k := 1 + c.dice.IntN(3)
		c.calm = false
		c.cfg.Unable = func(p int, _ protocol.StageIndex, _ protocol.TaskIndex) bool { return c.now < stormTime && p%4 < k }
	}
}

// retried mends the program after a while, and has the owner look now and then whether
// the job has failed, and try again.
func (c *chaos) retried() {
	for _, j := range c.jobs {
		j.want = protocol.JobDone
	}
	var again func()
	again = func() {
		c.fails = false
		for _, j := range c.jobs {
			c.order(j, protocol.VerbRetry)
		}
		c.After(20*time.Second, again)
	}
	c.After(stormTime+20*time.Second, again)
}

// ordersDrawn has the owner pause and resume, or cancel.
func (c *chaos) ordersDrawn() {
	for _, j := range c.jobs {
		if c.one(6) {
			at := time.Duration(3000+c.dice.IntN(5000)) * time.Millisecond
			c.After(at, func() { c.order(j, protocol.VerbPause) })
			c.After(stormTime+pauseTime, func() { c.resume(j) })
			c.calm = false
		}
		if c.one(8) {
			at := time.Duration(3000+c.dice.IntN(25000)) * time.Millisecond
			c.After(at, func() { c.order(j, protocol.VerbCancel) })
			c.calm = false
		}
	}
}

// resume ends a pause. By now all is quiet, and nothing is sealed yet: a look at the
// keepers' states before seals have absorbed most of it.
func (c *chaos) resume(j *trial) {
	if j.paused && !c.Settled(j.id) {
		c.violate("I5", "ledgers differ though the job is paused")
	}
	for _, p := range c.Peers {
		if v, ok := p.View(j.id); j.paused && p.up && ok && v.Keeper && v.State == protocol.JobRunning && !strings.HasPrefix(v.Reason, "paused") {
			c.violate("I5", "peer %d does not know that the job is paused", p.Index)
		}
	}
	c.order(j, protocol.VerbResume)
}

// order has the owner order something at a peer that knows the job as running.
func (c *chaos) order(j *trial, verb protocol.Verb) {
	for _, p := range c.Peers {
		if !p.up || p == c.never {
			continue
		}
		v, ok := p.View(j.id)
		if !ok || v.State != protocol.JobRunning && verb != protocol.VerbRetry || verb == protocol.VerbRetry && v.State != protocol.JobFailed {
			continue
		}
		j.orders++
		switch verb {
		case protocol.VerbCancel:
			c.Counts["order: cancel"]++
			j.want = protocol.JobCancelled
		case protocol.VerbPause:
			c.Counts["order: pause"]++
			j.paused = true
		case protocol.VerbResume:
			c.Counts["order: resume"]++
		case protocol.VerbRetry:
			c.Counts["order: retry"]++
		}
		p.Order(j.id, j.orders, verb)
		return
	}
}

// heal ends every fault. Who is not gone for good comes back.
func (c *chaos) heal() {
	c.cfg.Loss, c.cfg.Duplicate = 0, 0
	c.Partition(nil)
	clear(c.net.oneWay)
	clear(c.net.lag)
	for i := range c.net.clogs {
		c.net.clogs[i] = min(c.net.clogs[i], c.now)
	}
	for _, p := range c.Peers {
		if p.doomed = 0; p != c.gone {
			p.Restart()
		}
	}
	for _, j := range c.jobs {
		if _, ok := j.at.View(j.id); j.id == "" || !ok && !c.inv.retired[j.id] && j.at != c.gone {
			c.submit(j) // its peer crashed before it was durable, and the user knows
		}
		c.stands(j, c.now)
	}
}

// ends waits for a job to end: I2, and that it can be seen to.
func (c *chaos) ends(j *trial) {
	over := func() bool {
		if c.mayFail && j.want == protocol.JobDone && c.state(j.id) == protocol.JobFailed {
			j.want = protocol.JobFailed
		}
		return c.inv.retired[j.id] || c.Done(j.id) && c.state(j.id) == j.want
	}
	long := healTime
	if c.gone != nil {
		long += market.DefaultConfig().Lost
	}
	if !c.Run(c.now+long, over) {
		c.violate("I2", "a job has not ended %v after the world was healed: %s", long, c.progress(j.id))
	}
	c.Counts[map[protocol.JobState]string{
		protocol.JobDone: "job: done", protocol.JobFailed: "job: failed", protocol.JobCancelled: "job: cancelled",
	}[j.want]]++
}

// stands wants a job that runs to be run by somebody, again and again until it has ended: I2.
func (c *chaos) stands(j *trial, since time.Duration) {
	if c.state(j.id) != protocol.JobRunning && c.now > stormTime+time.Minute {
		return
	}
	if c.works(j.id) || c.pausedAt(j.id) || c.waitsForGone(j.id) {
		since = c.now
	}
	if c.now-since > idleTime {
		c.violate("I2", "nobody has run a task for %v: %s", c.now-since, c.progress(j.id))
		return
	}
	c.After(5*time.Second, func() { c.stands(j, since) })
}

// works tells whether a peer runs a task of a job.
func (c *chaos) works(id protocol.JobID) bool {
	for _, p := range c.Peers {
		for _, r := range p.began {
			if p.up && r.Job == id {
				return true
			}
		}
	}
	return false
}

// pausedAt tells whether a keeper knows a job to be paused.
func (c *chaos) pausedAt(id protocol.JobID) bool {
	return slices.ContainsFunc(c.Peers, func(p *Peer) bool {
		v, ok := p.View(id)
		return p.up && ok && v.Keeper && v.State == protocol.JobRunning && strings.HasPrefix(v.Reason, "paused")
	})
}

// waitsForGone tells whether a job waits for a result that nobody had but the peer that is gone
// for good, whose receipt was the only one: it is lost after market's Config.Lost.
func (c *chaos) waitsForGone(id protocol.JobID) bool {
	return c.gone != nil && slices.ContainsFunc(c.Peers, func(p *Peer) bool {
		v, ok := p.View(id)
		if !ok || !p.up || !v.Keeper || v.State != protocol.JobRunning {
			return false
		}
		_, text, ok := strings.Cut(v.Reason, "nobody serves chunk ")
		chunk, _, _ := strings.Cut(text, ";")
		return ok && c.inv.alone[chunk] == c.gone.ID()
	})
}

// state is a job's at the keepers that are up; 0 where they differ.
func (c *chaos) state(id protocol.JobID) (state protocol.JobState) {
	for _, p := range c.Peers {
		if v, ok := p.View(id); p.up && ok && v.Keeper {
			if state != 0 && state != v.State {
				return 0
			}
			state = v.State
		}
	}
	return state
}

// progress is the first view of a keeper that has the job running.
func (c *chaos) progress(id protocol.JobID) string {
	for _, p := range c.Peers {
		if p.up {
			if v, ok := p.View(id); ok && v.Keeper {
				return viewText(p, &v)
			}
		}
	}
	return "no keeper is up"
}
