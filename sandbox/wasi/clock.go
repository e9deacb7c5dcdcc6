package wasi

import (
	"crypto/rand"
	"math"
	"time"
)

// ClockStart is what a deterministic program reads as the time at its start: 2020-01-01T00:00:00Z, in nanoseconds.
const ClockStart = 1_577_836_800_000_000_000

const (
	// monotonicStart is not zero because programs take zero for "not set".
	monotonicStart = 1_000_000_000
	// clockStep is how far each reading moves a virtual clock, so that a program that waits by reading comes to an end.
	clockStep = 1_000

	clockRealtime = 0
	clockLast     = 3

	eventClock = 0
	eventWrite = 2

	subscriptionSize = 48
	eventSize        = 32
)

// clock is the program's time. A virtual one moves by clockStep when read and by what a sleep asks for, never by itself.
type clock struct {
	virtual    bool
	wall, mono uint64
	started    time.Time
}

// read returns the time of clock id in nanoseconds. A virtual clock moves if step is set.
func (c *clock) read(id uint32, step bool) uint64 {
	if c.virtual {
		if step {
			c.advance(clockStep)
		}
		if id == clockRealtime {
			return c.wall
		}
		return c.mono
	}
	if id == clockRealtime {
		return uint64(time.Now().UnixNano())
	}
	return monotonicStart + uint64(time.Since(c.started))
}

// advance moves a virtual clock, at most to the end of time.
func (c *clock) advance(d uint64) {
	c.wall = addSaturated(c.wall, d)
	c.mono = addSaturated(c.mono, d)
}

func addSaturated(a, b uint64) uint64 {
	if a > math.MaxInt64 || b > math.MaxInt64-a {
		return math.MaxInt64
	}
	return a + b
}

// stamp is the time for a file's time stamps; reading it moves nothing.
func (s *System) stamp() uint64 { return s.clock.read(clockRealtime, false) }

func clockResGet(s *System, m *memory, a []uint64) errno {
	if uint32(a[0]) > clockLast {
		return eInval
	}
	m.putU64(uint32(a[1]), clockStep)
	return 0
}

func clockTimeGet(s *System, m *memory, a []uint64) errno {
	if uint32(a[0]) > clockLast {
		return eInval
	}
	m.putU64(uint32(a[2]), s.clock.read(uint32(a[0]), true))
	return 0
}

func randomGet(s *System, m *memory, a []uint64) errno {
	b := m.slice(uint32(a[0]), uint32(a[1]))
	if s.rng != nil {
		_, _ = s.rng.Read(b) // never fails, see math/rand/v2.ChaCha8
	} else {
		_, _ = rand.Read(b) // never fails, see crypto/rand
	}
	return 0
}

// subscription is one thing that poll_oneoff waits for.
type subscription struct {
	userdata uint64
	kind     uint8
	err      errno
	wait     uint64 // of a clock: nanoseconds from now
}

func (s *System) subscription(m *memory, at uint32) subscription {
	sub := subscription{userdata: m.u64(at), kind: m.u8(at + 8)}
	if sub.kind != eventClock {
		if sub.kind > eventWrite {
			sub.err = eInval
		} else if _, e := s.descriptor(uint64(m.u32(at + 16))); e != 0 {
			sub.err = e
		}
		return sub
	}
	id, timeout, flags := m.u32(at+16), m.u64(at+24), m.u16(at+40)
	if id > clockLast {
		sub.err = eInval
		return sub
	}
	sub.wait = timeout
	if flags&1 != 0 { // an absolute time
		sub.wait = 0
		if now := s.clock.read(id, false); timeout > now {
			sub.wait = timeout - now
		}
	}
	return sub
}

// pollOneoff waits for the first of several events. Descriptors are always ready: nothing here ever blocks. Without one,
// the shortest wait is slept: by moving a virtual clock, or really.
func pollOneoff(s *System, m *memory, a []uint64) errno {
	in, out, n := uint32(a[0]), uint32(a[1]), uint32(a[2])
	if n == 0 {
		return eInval
	}
	if uint64(n)*subscriptionSize > uint64(len(m.bytes)) {
		return eFault
	}
	shortest, ready := uint64(math.MaxUint64), false
	for i := range n {
		sub := s.subscription(m, in+i*subscriptionSize)
		if sub.kind != eventClock || sub.err != 0 {
			ready = true
		} else {
			shortest = min(shortest, sub.wait)
		}
	}
	if m.fault {
		return eFault
	}
	if ready {
		shortest = 0
	}
	events := uint32(0)
	for i := range n { // who is due is decided before the clock moves: an absolute time is relative to now
		sub := s.subscription(m, in+i*subscriptionSize)
		if sub.kind == eventClock && sub.err == 0 && sub.wait > shortest {
			continue
		}
		// Events may overlap subscriptions that were read already, never those to come: 32 bytes against 48.
		b := m.slice(out+events*eventSize, eventSize)
		if b == nil {
			return eFault
		}
		clear(b)
		m.putU64(out+events*eventSize, sub.userdata)
		b[8], b[9], b[10] = byte(sub.err), byte(sub.err>>8), sub.kind
		if sub.kind != eventClock && sub.err == 0 {
			b[16] = 1 // bytes that can be read or written: at least one
		}
		events++
	}
	m.putU32(uint32(a[3]), events)
	s.sleep(shortest)
	return 0
}

func (s *System) sleep(d uint64) {
	switch {
	case d == 0:
	case s.clock.virtual:
		s.clock.advance(d)
	default:
		time.Sleep(time.Duration(min(d, math.MaxInt64)))
	}
}
