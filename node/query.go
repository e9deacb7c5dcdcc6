package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
)

// The query protocol, protocol.Query(mesh), lets a peer answer for jobs that it does not keep: it asks one that does.
// A query is one frame (protocol.WriteFrame) on a stream of its own, and so is the answer; both are JSON objects.
//
//	question  {"job": CID, "ask": "status" | "records" | "pages" | "tail" | "control",
//	           "stage": N, "task": N, "offset": N, "record": base64}
//	answer    {"error": text}, or for
//	  status    {"report": {...}}: what the peer knows of the job, with its failures and what the peer runs of it
//	  records   {"records": [base64, ...], "next": N}: the job's Done and Seal records from number offset on, as they
//	            were signed, as many as fit; next is where to go on, 0 at the end
//	  pages     {"pages": [CID, ...]}: pages that may have the result and log of the task
//	  tail      {"tail": {...}}: the log of the task, from byte offset on, if the peer runs it now
//	  control   {}: the owner's Control record is durable with the peer
//
// Unknown fields are ignored, an unknown ask is an error. Nothing in an answer is believed without need: records carry
// their signatures, CIDs are checked by their chunks, and counts are shown to people alone.
const (
	askStatus  = "status"
	askRecords = "records"
	askPages   = "pages"
	askTail    = "tail"
	askControl = "control"
)

const (
	// maxQuestion bounds a question: a control record and some names.
	maxQuestion = 2 * protocol.MaxRecord
	// maxAnswer bounds an answer.
	maxAnswer = protocol.MaxMessage
	// recordsBytes bounds the records in one answer: in base64, with room for the rest.
	recordsBytes = maxAnswer / 2
	// queryTimeout bounds a query at either end, dialling included.
	queryTimeout = 10 * time.Second
	// queriesAtOnce and queriesPerPeer bound the questions that are being answered.
	queriesAtOnce  = 64
	queriesPerPeer = 8
	// maxPages bounds the pages in one answer: those of a block, at one task each.
	maxPages = protocol.BlockSize
)

type question struct {
	Job    string `json:"job"`
	Ask    string `json:"ask"`
	Stage  uint32 `json:"stage,omitempty"`
	Task   uint64 `json:"task,omitempty"`
	Offset int64  `json:"offset,omitempty"`
	Record []byte `json:"record,omitempty"`
}

type reply struct {
	Error   string   `json:"error,omitempty"`
	Report  *report  `json:"report,omitempty"`
	Records [][]byte `json:"records,omitempty"`
	Next    int64    `json:"next,omitempty"`
	Pages   []string `json:"pages,omitempty"`
	Tail    *tail    `json:"tail,omitempty"`
}

// errUnknownJob: the peer that was asked knows nothing of the job.
var errUnknownJob = errors.New("node: no such job is known here")

// queries answers other peers' questions and asks them.
type queries struct {
	n     *Node
	codec protocol.Codec

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	total int
	by    map[protocol.PeerID]int
}

func newQueries(n *Node) *queries {
	q := &queries{n: n, by: make(map[protocol.PeerID]int)}
	q.ctx, q.cancel = context.WithCancel(context.Background())
	n.net.Host().SetStreamHandler(protocol.Query(n.cfg.Mesh), q.handle)
	return q
}

func (q *queries) close() {
	q.n.net.Host().RemoveStreamHandler(protocol.Query(q.n.cfg.Mesh))
	q.mu.Lock()
	q.cancel()
	q.mu.Unlock()
	q.wg.Wait()
}

func (q *queries) admit(p protocol.PeerID) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ctx.Err() != nil || q.total >= queriesAtOnce || q.by[p] >= queriesPerPeer {
		return false
	}
	q.total++
	q.by[p]++
	q.wg.Add(1)
	return true
}

func (q *queries) leave(p protocol.PeerID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.total--
	if q.by[p]--; q.by[p] == 0 {
		delete(q.by, p)
	}
	q.wg.Done()
}

// handle answers one question.
func (q *queries) handle(stream network.Stream) {
	p := stream.Conn().RemotePeer()
	if !q.admit(p) {
		_ = stream.Reset()
		return
	}
	defer q.leave(p)
	ctx, cancel := context.WithTimeout(q.ctx, queryTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = stream.Reset() })
	defer stop()
	r := protocol.NewReader(stream, maxQuestion)
	defer r.Close()
	frame, err := r.ReadFrame()
	if err != nil {
		_ = stream.Reset()
		return
	}
	ask, id, err := readQuestion(frame)
	var answer *reply
	if err == nil {
		answer, err = q.answer(ctx, p, id, ask)
	}
	if err != nil {
		answer = &reply{Error: err.Error()}
	}
	data, err := json.Marshal(answer)
	if err != nil || protocol.WriteFrame(stream, data) != nil {
		_ = stream.Reset()
		return
	}
	_ = stream.Close()
}

// readQuestion decodes a question and finds out which job it is about.
func readQuestion(frame []byte) (*question, protocol.JobID, error) {
	ask := new(question)
	if err := json.Unmarshal(frame, ask); err != nil {
		return nil, "", errors.New("node: query: the question can't be read")
	}
	id, err := protocol.ParseJobID(ask.Job)
	return ask, id, err
}

func (q *queries) answer(ctx context.Context, from protocol.PeerID, id protocol.JobID, ask *question) (*reply, error) {
	stage, task := protocol.StageIndex(ask.Stage), protocol.TaskIndex(ask.Task)
	switch ask.Ask {
	case askStatus:
		r, err := q.n.report(ctx, id)
		if err == nil && r == nil {
			err = errUnknownJob
		}
		return &reply{Report: r}, err
	case askRecords:
		return q.recordsFrom(ctx, id, ask.Offset)
	case askPages:
		pages, err := q.n.pages(ctx, id, stage, task)
		out := &reply{}
		for _, c := range pages[:min(len(pages), maxPages)] {
			out.Pages = append(out.Pages, c.String())
		}
		return out, err
	case askTail:
		t := q.n.tail(id, stage, task, ask.Offset)
		return &reply{Tail: &t}, nil
	case askControl:
		return &reply{}, q.control(ctx, from, id, ask.Record)
	}
	return nil, fmt.Errorf("node: query %.32q: unknown", ask.Ask)
}

func (q *queries) recordsFrom(ctx context.Context, id protocol.JobID, offset int64) (*reply, error) {
	list, err := q.n.resultRecords(ctx, id)
	if err != nil {
		return nil, err
	}
	out := &reply{}
	size := 0
	for i := max(offset, 0); i < int64(len(list)); i++ {
		if size += len(list[i].Raw); size > recordsBytes {
			out.Next = i
			break
		}
		out.Records = append(out.Records, list[i].Raw)
	}
	return out, nil
}

// control takes an owner's order from a peer that does not keep the job.
func (q *queries) control(ctx context.Context, from protocol.PeerID, id protocol.JobID, raw []byte) error {
	rec, err := q.codec.OpenRecord(raw)
	if err != nil {
		return err
	}
	if b, ok := rec.Body.(*protocol.Control); !ok || b.Job != id {
		return errors.New("node: query: the record is no control of the job")
	}
	known := false
	if err := q.n.driver.ask(ctx, func(m machine) { _, known = m.View(id) }); err != nil {
		return err
	}
	if !known {
		return errUnknownJob
	}
	return q.n.driver.settle(ctx, market.Received{From: from, Message: &protocol.News{Job: id, Records: []protocol.Record{rec}}})
}

// ask puts a question to a peer.
func (q *queries) ask(ctx context.Context, p protocol.PeerID, ask question) (*reply, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	fail := func(err error) error { return fmt.Errorf("node: ask %s: %w", p, err) }
	stream, err := q.n.net.Host().NewStream(ctx, p, protocol.Query(q.n.cfg.Mesh))
	if err != nil {
		return nil, fail(err)
	}
	defer stream.Reset()
	stop := context.AfterFunc(ctx, func() { _ = stream.Reset() })
	defer stop()
	data, err := json.Marshal(ask)
	if err == nil {
		err = protocol.WriteFrame(stream, data)
	}
	if err != nil {
		return nil, fail(err)
	}
	_ = stream.CloseWrite()
	r := protocol.NewReader(stream, maxAnswer)
	defer r.Close()
	frame, err := r.ReadFrame()
	if err != nil {
		return nil, fail(err)
	}
	answer := new(reply)
	if err := json.Unmarshal(frame, answer); err != nil {
		return nil, fail(err)
	}
	if answer.Error != "" {
		return nil, fail(errors.New(detail(answer.Error)))
	}
	return answer, nil
}

// status asks a peer for its report of a job.
func (q *queries) status(ctx context.Context, p protocol.PeerID, id protocol.JobID) (*report, error) {
	a, err := q.ask(ctx, p, question{Job: id.String(), Ask: askStatus})
	if err != nil {
		return nil, err
	}
	if a.Report == nil || a.Report.Job != id.String() {
		return nil, fmt.Errorf("node: ask %s: no report of the job in its answer", p)
	}
	return a.Report, nil
}

// records asks a peer for a job's Done and Seal records; those that are not what they say are left out.
func (q *queries) records(ctx context.Context, p protocol.PeerID, id protocol.JobID) (list []protocol.Record, err error) {
	for offset := int64(0); ; {
		a, err := q.ask(ctx, p, question{Job: id.String(), Ask: askRecords, Offset: offset})
		if err != nil {
			return nil, err
		}
		for _, raw := range a.Records {
			if rec, err := q.codec.OpenRecord(raw); err == nil && rec.Body.JobID() == id {
				list = append(list, rec)
			}
		}
		if a.Next <= offset {
			return list, nil
		}
		offset = a.Next
	}
}

// pages asks a peer for the pages of a task.
func (q *queries) pages(ctx context.Context, p protocol.PeerID, id protocol.JobID, stage protocol.StageIndex, task protocol.TaskIndex) (list []cid.Cid, err error) {
	a, err := q.ask(ctx, p, question{Job: id.String(), Ask: askPages, Stage: uint32(stage), Task: uint64(task)})
	if err != nil {
		return nil, err
	}
	for _, text := range a.Pages {
		if c, err := cid.Decode(text); err == nil {
			list = append(list, c)
		}
	}
	return list, nil
}
