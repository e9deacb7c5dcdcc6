package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// jets is the least that one writes for "a queue and some workers" on NATS JetStream: a server that keeps tasks and
// results on disk, workers that pull one task at a time and acknowledge it when its result is kept, and a client that
// publishes tasks and reads results. Each is a process of its own.
type jets struct {
	dir string
	url string
	all []*exec.Cmd // the server first
}

// Names in the server.
const (
	taskStream, resultStream, workersOfAll = "TASKS", "RESULTS", "workers"
	// ackWait is when a task whose worker is silent goes to another; pulse is how often a worker speaks.
	ackWait, pulse = 5 * time.Second, time.Second
	// startWait bounds the start of the server.
	startWait = 30 * time.Second
)

func (j *jets) name() string { return "nats" }

func (j *jets) up(ctx context.Context) error {
	server, said, err := j.start(ctx, "nats-server", filepath.Join(j.dir, "jetstream"))
	if err != nil {
		return err
	}
	if j.url, err = said.ReadString('\n'); err != nil {
		return fmt.Errorf("nats-server %d did not start: %w", server.Process.Pid, err)
	}
	j.url = strings.TrimSpace(j.url)
	for range workers {
		_, said, err := j.start(ctx, "nats-worker", j.url)
		if err != nil {
			return err
		}
		if _, err := said.ReadString('\n'); err != nil {
			return fmt.Errorf("a nats-worker did not start: %w", err)
		}
	}
	return nil
}

// start starts a daemon, which prints a line when it is ready and ends when its standard input does, so that it cannot
// outlive bench.
func (j *jets) start(ctx context.Context, args ...string) (*exec.Cmd, *bufio.Reader, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if _, err := cmd.StdinPipe(); err != nil {
		return nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	j.all = append(j.all, cmd)
	return cmd, bufio.NewReader(out), nil
}

func (j *jets) down() error {
	for i := len(j.all) - 1; i >= 0; i-- {
		_ = j.all[i].Process.Signal(syscall.SIGTERM)
		_ = j.all[i].Wait()
	}
	j.all = nil
	return os.RemoveAll(filepath.Join(j.dir, "jetstream"))
}

func (j *jets) daemons() []int {
	var pids []int
	for _, c := range j.all {
		pids = append(pids, c.Process.Pid)
	}
	return pids
}

func (j *jets) do(ctx context.Context, tasks []task) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var lines strings.Builder
	for _, t := range tasks {
		line, err := json.Marshal(t)
		if err != nil {
			return err
		}
		lines.Write(append(line, '\n'))
	}
	cmd := exec.CommandContext(ctx, self, "nats-submit", j.url)
	cmd.Stdin = strings.NewReader(lines.String())
	return run(cmd)
}

// daemon is done when bench is gone or says so.
func daemon() context.Context {
	ctx, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM) // to the end of the process
	ctx, stop := context.WithCancel(ctx)
	signal.Ignore(os.Interrupt) // a Ctrl-C is for bench
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	return ctx
}

func natsServer(args []string) error {
	ctx := daemon()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: args[0], NoSigs: true})
	if err != nil {
		return err
	}
	s.Start()
	defer s.WaitForShutdown()
	defer s.Shutdown()
	if !s.ReadyForConnections(startWait) {
		return errors.New("nats-server: not ready in time")
	}
	js, err := jetStream(s.ClientURL())
	if err != nil {
		return err
	}
	tasks, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: taskStream, Subjects: []string{"task.>"}, Retention: jetstream.WorkQueuePolicy})
	if err != nil {
		return err
	}
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: resultStream, Subjects: []string{"result.>"}}); err != nil {
		return err
	}
	if _, err := tasks.CreateConsumer(ctx, jetstream.ConsumerConfig{Durable: workersOfAll, AckPolicy: jetstream.AckExplicitPolicy,
		AckWait: ackWait, MaxAckPending: 10000}); err != nil {
		return err
	}
	js.Conn().Close()
	fmt.Println(s.ClientURL())
	<-ctx.Done()
	return nil
}

func jetStream(url string) (jetstream.JetStream, error) {
	conn, err := nats.Connect(url, nats.MaxReconnects(-1))
	if err != nil {
		return nil, err
	}
	return jetstream.New(conn)
}

func natsWorker(args []string) error {
	ctx := daemon()
	js, err := jetStream(args[0])
	if err != nil {
		return err
	}
	consumer, err := js.Consumer(ctx, taskStream, workersOfAll)
	if err != nil {
		return err
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(1))
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, messages.Stop)
	fmt.Println("ready")
	for {
		m, err := messages.Next()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if err := work(ctx, js, m); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// work runs a task, keeps its result, and only then acknowledges it.
func work(ctx context.Context, js jetstream.JetStream, m jetstream.Msg) error {
	running, done := context.WithCancel(ctx)
	defer done()
	go func() {
		for tick := time.NewTicker(pulse); ; {
			select {
			case <-running.Done():
				tick.Stop()
				return
			case <-tick.C:
				_ = m.InProgress()
			}
		}
	}()
	var t task
	err := json.Unmarshal(m.Data(), &t)
	if err == nil {
		err = runTask(ctx, t)
	}
	var result []byte
	if err != nil {
		result = []byte(err.Error())
	}
	if _, err := js.Publish(ctx, "result"+strings.TrimPrefix(m.Subject(), "task"), result); err != nil {
		return err
	}
	return m.DoubleAck(ctx)
}

func natsSubmit(args []string) error {
	ctx := context.Background()
	js, err := jetStream(args[0])
	if err != nil {
		return err
	}
	job := fmt.Sprint(time.Now().UnixNano())
	results, err := js.OrderedConsumer(ctx, resultStream, jetstream.OrderedConsumerConfig{FilterSubjects: []string{"result." + job + ".*"}})
	if err != nil {
		return err
	}
	messages, err := results.Messages()
	if err != nil {
		return err
	}
	open := make(map[string]bool)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		name := fmt.Sprintf("%s.%d", job, len(open))
		open[name] = true
		if _, err := js.PublishAsync("task."+name, append([]byte(nil), lines.Bytes()...)); err != nil {
			return err
		}
	}
	<-js.PublishAsyncComplete()
	for len(open) > 0 {
		m, err := messages.Next()
		if err != nil {
			return err
		}
		if len(m.Data()) > 0 {
			return fmt.Errorf("a task failed: %s", m.Data())
		}
		delete(open, strings.TrimPrefix(m.Subject(), "result."))
	}
	return nil
}
