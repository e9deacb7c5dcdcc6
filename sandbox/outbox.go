package sandbox

import (
	"io"
	"sync"
	"time"
)

const (
	// holdFor is how long a child holds an answer for others to go with it: long beside a task that does next to nothing, whose
	// answer costs its pool more to wake up for than to read, short beside all that waits for a task.
	holdFor = time.Millisecond
	// maxHeld is how many bytes of answers it holds: what a pipe takes at once.
	maxHeld = 32 << 10
)

// outbox is where a child's messages leave it, several at once where there are.
type outbox struct {
	to io.Writer

	mu     sync.Mutex
	held   []byte
	timer  *time.Timer // sends what is held; nil before the first time
	failed error       // to send
}

// send sends a message with all that is held; with more, which is a promise that another message follows, it may hold it up to
// holdFor. An error may be of an earlier message.
func (o *outbox) send(a response, body []byte, more bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	first := len(o.held) == 0
	var err error
	if o.held, err = appendFrame(o.held, a, body); err != nil {
		return err
	}
	switch {
	case !more || len(o.held) >= maxHeld:
		if o.timer != nil {
			o.timer.Stop()
		}
		o.flush()
	case !first:
	case o.timer == nil:
		o.timer = time.AfterFunc(holdFor, o.late)
	default:
		o.timer.Reset(holdFor)
	}
	return o.failed
}

// late sends what has been held long enough.
func (o *outbox) late() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flush()
}

// flush sends what is held. The caller holds mu.
func (o *outbox) flush() {
	if len(o.held) > 0 && o.failed == nil {
		_, o.failed = o.to.Write(o.held)
	}
	if o.held = o.held[:0]; cap(o.held) > 2*maxHeld {
		o.held = nil
	}
}
