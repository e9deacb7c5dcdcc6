package sandbox

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

// stderrTail is how many of the last bytes that a child wrote to its standard error are kept, to say why it crashed.
const stderrTail = 4 << 10

// process is a child, seen from the pool. One exchange at a time.
type process struct {
	cmd    *exec.Cmd
	in     *os.File      // requests
	out    *os.File      // responses
	reader *bufio.Reader // of out
	stderr tail
	dead   chan struct{} // closed when the process is gone and reaped
	since  time.Time     // when it became idle
}

// spawner starts processes, all from one thread that lives as long as the pool: Linux kills a child when the thread that
// started it ends, not the process. It also holds the write end of the pipe whose EOF tells children the same.
type spawner struct {
	command []string
	life    *os.File // read end, inherited by each child
	held    *os.File // write end
	jobs    chan func()
	done    chan struct{}
}

// newSpawner makes a spawner of children that can write beneath dirs alone, where the system has a way to see to that.
func newSpawner(command, dirs []string, log *slog.Logger) (*spawner, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s := &spawner{command: command, life: r, held: w, jobs: make(chan func()), done: make(chan struct{})}
	ready := make(chan error)
	go func() {
		defer close(s.done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, and what confines it too
		landlock, err := confine(dirs)
		ready <- err
		log.Debug("sandbox: children are confined", "landlock", landlock, "error", err)
		for job := range s.jobs {
			job()
		}
	}()
	if err := <-ready; err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// close ends the thread, and with it all children that are left. No start may be under way.
func (s *spawner) close() error {
	close(s.jobs)
	<-s.done
	return errors.Join(s.held.Close(), s.life.Close())
}

// startTimeout is how long a child may take until it is ready; it is some 20 ms where nothing else runs.
const startTimeout = time.Minute

// start starts a child and waits until it is ready, so that what fails until then is no task's fault.
func (s *spawner) start(ctx context.Context) (*process, error) {
	p, err := s.fork()
	if err != nil {
		return nil, err
	}
	if _, _, err = p.exchange(ctx, nil, startTimeout, nil); err != nil {
		p.kill()
		if errors.Is(err, errCrashed) || errors.Is(err, errTimeout) {
			err = fmt.Errorf("sandbox: start child %q: %w: %s", s.command, err, p.epitaph())
		}
		p.close()
		return nil, err
	}
	return p, nil
}

// fork starts the process.
func (s *spawner) fork() (*process, error) {
	childIn, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer childIn.Close()
	out, childOut, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	defer childOut.Close()
	p := &process{in: in, out: out, reader: bufio.NewReader(out), dead: make(chan struct{})}
	p.cmd = exec.Command(s.command[0], s.command[1:]...)
	p.cmd.Stdin = childIn
	p.cmd.Stdout, p.cmd.Stderr = &p.stderr, &p.stderr // one pipe; /dev/null could not be opened by the confined thread
	p.cmd.ExtraFiles = []*os.File{childOut, s.life}   // responseFD, lifeFD
	// Two processors: one for the program, one for the goroutine that waits for the parent's end. Nothing of the
	// peer's environment is the child's business.
	p.cmd.Env = []string{"GOMAXPROCS=2", "GOTRACEBACK=single"}
	tie(p.cmd)
	started := make(chan error)
	s.jobs <- func() { started <- p.cmd.Start() }
	if err := <-started; err != nil {
		return nil, errors.Join(fmt.Errorf("sandbox: start child: %w", err), in.Close(), out.Close())
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is in ProcessState
		_ = p.in.Close()
		close(p.dead)
	}()
	return p, nil
}

// kill ends the child. It is gone when dead is closed.
func (p *process) kill() { _ = p.cmd.Process.Kill() } // fails only when it is gone already

// close kills the child, waits until it is gone and frees its pipes.
func (p *process) close() {
	p.kill()
	<-p.dead
	_ = p.out.Close()
}

func (p *process) alive() bool {
	select {
	case <-p.dead:
		return false
	default:
		return true
	}
}

// errCrashed says that the child ended instead of answering, errTimeout that it did not answer in time.
var (
	errCrashed = errors.New("sandbox: the child process ended")
	errTimeout = errors.New("sandbox: time limit passed")
)

// writeError is in the error of an exchange whose request did not arrive: nothing was started.
type writeError struct{ error }

func (e writeError) Unwrap() error { return e.error }

// exchange sends a request, unless it is nil, and waits for the child's message, both within limit; notices that come before it go to
// hear, which does not wait and may be nil where there can be none. After an error the process is dead or dying and must be closed.
func (p *process) exchange(ctx context.Context, q *request, limit time.Duration, hear func(notice) error) (a response, body []byte, err error) {
	deadline := time.Now().Add(limit)
	err = p.during(ctx, func() error {
		if q != nil {
			frame, err := appendFrame(nil, q, nil)
			if err == nil {
				err = p.ask(frame, deadline)
			}
			if err != nil {
				return err
			}
		}
		a, body, err = p.answer(deadline, hear)
		return err
	})
	return a, body, err
}

// during talks to the child, which is killed when the context ends or the talk fails.
func (p *process) during(ctx context.Context, talk func() error) error {
	stop := context.AfterFunc(ctx, p.kill)
	err := talk()
	if !stop() {
		return context.Cause(ctx)
	}
	if err != nil {
		p.kill()
	}
	return err
}

// ask sends messages, each of them a request. After an error none was started if it was one alone.
func (p *process) ask(frames []byte, deadline time.Time) error {
	err := p.in.SetWriteDeadline(deadline)
	if err == nil {
		_, err = p.in.Write(frames)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errTimeout
	default:
		return writeError{fmt.Errorf("%w: %w", errCrashed, err)} // a pipe is closed once the child has ended
	}
}

// answer waits for the child's next message that is no notice. An error is an errTimeout or an errCrashed: what a child says that
// makes no sense ends it.
func (p *process) answer(deadline time.Time, hear func(notice) error) (response, []byte, error) {
	if err := p.out.SetReadDeadline(deadline); err != nil {
		return response{}, nil, fmt.Errorf("%w: %w", errCrashed, err)
	}
	for {
		var a response
		body, err := readFrame(p.reader, &a)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return a, nil, errTimeout
		case err != nil:
			return a, nil, fmt.Errorf("%w: %w", errCrashed, err)
		case a.Notice == nil:
			return a, body, nil
		case hear == nil:
			return a, nil, fmt.Errorf("%w: a notice without a task", errCrashed)
		}
		if err := hear(*a.Notice); err != nil {
			return a, nil, fmt.Errorf("%w: %w", errCrashed, err)
		}
	}
}

// epitaph says how a dead child ended and what it said last.
func (p *process) epitaph() string {
	<-p.dead
	text := p.cmd.ProcessState.String()
	if last := p.stderr.String(); last != "" {
		text += ": " + last
	}
	return text
}

// outOfMemory reports whether a dead child was ended for want of memory: by the kernel, or by its own runtime.
func (p *process) outOfMemory() bool {
	<-p.dead
	return killedBySystem(p.cmd.ProcessState) || strings.Contains(p.stderr.String(), "out of memory")
}

// tail is a writer that keeps the last bytes.
type tail struct {
	mu    sync.Mutex
	bytes []byte
}

var _ io.Writer = (*tail)(nil)

// Write implements io.Writer.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bytes = append(t.bytes, b[max(0, len(b)-stderrTail):]...)
	t.bytes = t.bytes[max(0, len(t.bytes)-stderrTail):]
	return len(b), nil
}

// String is the first line of what was kept that is not empty.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return firstLine(strings.TrimSpace(string(t.bytes)))
}

// childArguments are what ChildMain expects.
func childArguments(c Config) []string {
	return []string{c.Dir, strconv.FormatInt(c.ChildMemory, 10)}
}
