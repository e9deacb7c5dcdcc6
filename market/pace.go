package market

import (
	"time"

	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/protocol"
)

// pace is an estimate of how long this peer takes for a task of a program: an
// exponentially weighted mean over what ran here, in whole nanoseconds.
type pace struct {
	mean time.Duration
	runs uint64
}

// maxPaces bounds the programs whose pace is remembered.
const maxPaces = 4096

func (m *Machine) paceOf(st *job.Stage) *pace {
	k := key(st.Program.Root)
	p := m.paces[k]
	if p == nil {
		if len(m.paces) >= maxPaces {
			clear(m.paces)
		}
		p = &pace{}
		m.paces[k] = p
	}
	return p
}

// paceRuns is how many runs an estimate is the mean of. Tasks of one program often differ by
// half their mean; the mean of 16 is then known to an eighth, and a machine that has become
// slower shows within a few.
const paceRuns = 16

// ran adds a measured time. The first weigh as in a plain mean.
func (p *pace) ran(d time.Duration) {
	p.runs++
	p.mean += (max(d, time.Microsecond) - p.mean) / time.Duration(min(p.runs, paceRuns))
}

// task is the estimate; 0: not known.
func (p *pace) task() time.Duration { return p.mean }

// rate is the speed of all slots together; 0: not known.
func (p *pace) rate(slots int) protocol.Rate {
	if p.mean == 0 {
		return 0
	}
	return protocol.Rate(max(1, int64(slots)*1000*int64(time.Second)/int64(p.mean)))
}

// drain is how long backlog tasks take at a rate; an unknown one counts as a task a second.
func drain(backlog uint64, r protocol.Rate) time.Duration {
	if r == 0 {
		r = 1000
	}
	const most = 1 << 40 // keeps the product inside 63 bits of milliseconds
	return time.Duration(min(backlog, most)*1_000_000/uint64(r)) * time.Millisecond
}
