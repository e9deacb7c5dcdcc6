package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
)

// itemBody is the body of an import. The transport has it write itself straight into the connection: handed over a buffer
// at a time through Read, each byte would be copied twice more.
type itemBody struct{ src Source }

var _ io.WriterTo = itemBody{}

func (b itemBody) WriteTo(w io.Writer) (int64, error) { return 0, sendItems(w, b.src) }

// Read is what a body must have, and an io.Copy from it does not use.
func (itemBody) Read([]byte) (int, error) {
	return 0, errors.New("api: the body of an import is written, not read")
}

// Import sends src to its end. Where it fails, one Read of src may still be under way
// when it returns. An error of src's own is returned as it is.
func (c *Client) Import(ctx context.Context, o ImportOptions, src Source) (Imported, error) {
	q := url.Values{"form": {string(o.Form)}}
	if o.Split != "" {
		q.Set("split", o.Split)
	}
	var got Imported
	res, err := c.request(ctx, http.MethodPost, "/import?"+q.Encode(), itemBody{src})
	if err != nil {
		return got, err
	}
	defer res.Close()
	if err := json.NewDecoder(res).Decode(&got); err != nil {
		return got, c.explain(ctx, cut(err))
	}
	io.Copy(io.Discard, res)
	return got, nil
}

func sendItems(w io.Writer, src Source) error {
	s := newStreamWriter(w)
	for {
		item, err := src.Next()
		if errors.Is(err, io.EOF) {
			return s.end(nil)
		}
		if err != nil {
			return err
		}
		if err := s.header(item); err != nil {
			return err
		}
		if item.CID != "" {
			continue
		}
		if _, err := io.CopyBuffer(s, readerOnly{src}, make([]byte, 4*streamBuffer)); err != nil {
			return err
		}
	}
}

// Submit starts a job.
func (c *Client) Submit(ctx context.Context, r SubmitRequest) (Submitted, error) {
	return get[Submitted](ctx, c, http.MethodPost, "/jobs", r)
}

// Accepted waits until the job is on as many peers as can be had.
func (c *Client) Accepted(ctx context.Context, job string) (Acceptance, error) {
	return get[Acceptance](ctx, c, http.MethodGet, jobPath(job, "accepted"), nil)
}

// Jobs lists the jobs that the peer knows, newest first.
func (c *Client) Jobs(ctx context.Context) (JobList, error) {
	return get[JobList](ctx, c, http.MethodGet, "/jobs", nil)
}

// Status tells how a job is.
func (c *Client) Status(ctx context.Context, job string) (Status, error) {
	return get[Status](ctx, c, http.MethodGet, jobPath(job, ""), nil)
}

// Watch calls f with the job's status as it changes, the last time when it has ended.
func (c *Client) Watch(ctx context.Context, job string, f func(Status) error) error {
	return lines(ctx, c, jobPath(job, "watch"), f)
}

// Wait waits until the job has ended and gives its last status.
func (c *Client) Wait(ctx context.Context, job string) (Status, error) {
	var last Status
	err := c.Watch(ctx, job, func(s Status) error { last = s; return nil })
	return last, err
}

// Control gives an order of the owner's.
func (c *Client) Control(ctx context.Context, job string, verb Verb) (Summary, error) {
	return get[Summary](ctx, c, http.MethodPost, jobPath(job, "control"), controlRequest{verb})
}

// Stopped tells who has stopped running a cancelled job; it waits for all, at most StopWait.
func (c *Client) Stopped(ctx context.Context, job string) (Stopped, error) {
	return get[Stopped](ctx, c, http.MethodGet, jobPath(job, "stopped"), nil)
}

// Why explains a job that does not get on.
func (c *Client) Why(ctx context.Context, job string) (Why, error) {
	return get[Why](ctx, c, http.MethodGet, jobPath(job, "why"), nil)
}

// Logs calls f with parts of the tasks' logs.
func (c *Client) Logs(ctx context.Context, job string, o LogsOptions, f func(LogEntry) error) error {
	q := url.Values{}
	if o.Stage != "" {
		q.Set("stage", o.Stage)
	}
	if o.Task != nil {
		q.Set("task", strconv.FormatUint(*o.Task, 10))
	}
	if o.Follow {
		q.Set("follow", "")
	}
	return lines(ctx, c, jobPath(job, "logs?"+q.Encode()), f)
}

// Results is a job's outputs as they come. Close it.
type Results struct {
	Info    ResultsInfo
	body    io.ReadCloser
	stream  *streamReader
	explain func(error) error
}

// Results asks for a job's outputs.
func (c *Client) Results(ctx context.Context, job string, o ResultsOptions) (*Results, error) {
	q := url.Values{}
	for name, on := range map[string]bool{"wait": o.Wait, "partial": o.Partial, "files": o.Files} {
		if on {
			q.Set(name, "")
		}
	}
	body, err := c.request(ctx, http.MethodGet, jobPath(job, "results?"+q.Encode()), nil)
	if err != nil {
		return nil, err
	}
	r := &Results{body: body, stream: newStreamReader(body), explain: func(err error) error {
		if err == nil || err == io.EOF {
			return err
		}
		return c.explain(ctx, err)
	}}
	if err := r.stream.next(&r.Info); err != nil {
		body.Close()
		return nil, r.explain(cut(err))
	}
	return r, nil
}

// Next goes to the next output; io.EOF after the last. Read then gives its bytes.
func (r *Results) Next() (Output, error) {
	var o Output
	err := r.stream.next(&o)
	return o, r.explain(err)
}

// Read reads the output that Next gave, up to io.EOF.
func (r *Results) Read(p []byte) (int, error) {
	n, err := r.stream.Read(p)
	return n, r.explain(err)
}

// Summary is what came; it is known when Next has given io.EOF.
func (r *Results) Summary() (ResultsSummary, error) {
	var s ResultsSummary
	if err := json.Unmarshal(r.stream.trailer, &s); err != nil {
		return s, fmt.Errorf("api: results: summary: %w", err)
	}
	return s, nil
}

// Close ends the transfer.
func (r *Results) Close() error { return r.body.Close() }

// Cat copies a file to w.
func (c *Client) Cat(ctx context.Context, cid string, w io.Writer) error {
	body, err := c.request(ctx, http.MethodGet, "/cat/"+url.PathEscape(cid), nil)
	if err != nil {
		return err
	}
	defer body.Close()
	s := newStreamReader(body)
	if _, err := io.Copy(w, readerOnly{s}); err != nil {
		return c.explain(ctx, err)
	}
	if err := s.next(nil); err != io.EOF {
		return c.explain(ctx, err)
	}
	return nil
}

// Pin keeps a file in the peer's store until Unpin.
func (c *Client) Pin(ctx context.Context, cid string) error {
	_, err := get[struct{}](ctx, c, http.MethodPost, "/pin/"+url.PathEscape(cid), nil)
	return err
}

// Unpin undoes Pin.
func (c *Client) Unpin(ctx context.Context, cid string) error {
	_, err := get[struct{}](ctx, c, http.MethodPost, "/unpin/"+url.PathEscape(cid), nil)
	return err
}

// Store tells how full the peer's store is.
func (c *Client) Store(ctx context.Context) (Store, error) {
	return get[Store](ctx, c, http.MethodGet, "/store", nil)
}

// GC drops what nothing holds.
func (c *Client) GC(ctx context.Context) (GC, error) {
	return get[GC](ctx, c, http.MethodPost, "/gc", nil)
}

// ID tells how other machines find the peer.
func (c *Client) ID(ctx context.Context) (ID, error) {
	return get[ID](ctx, c, http.MethodGet, "/id", nil)
}

// Connect joins the peer at a multiaddress.
func (c *Client) Connect(ctx context.Context, addr string) (Peer, error) {
	return get[Peer](ctx, c, http.MethodPost, "/connect", connectRequest{addr})
}

// Peers lists the peers that the peer is connected to.
func (c *Client) Peers(ctx context.Context) (PeerList, error) {
	return get[PeerList](ctx, c, http.MethodGet, "/peers", nil)
}

// Refuse makes these the peers that a peer of a testnet keeps apart from; none: nobody.
func (c *Client) Refuse(ctx context.Context, peers []string) error {
	_, err := get[struct{}](ctx, c, http.MethodPost, "/testnet/refuse", refuseRequest{peers})
	return err
}

// Doctor checks what often goes wrong.
func (c *Client) Doctor(ctx context.Context) (Checkup, error) {
	return get[Checkup](ctx, c, http.MethodGet, "/doctor", nil)
}

// Self describes the peer.
func (c *Client) Self(ctx context.Context) (Self, error) {
	return get[Self](ctx, c, http.MethodGet, "/self", nil)
}

// Version tells what the daemon runs.
func (c *Client) Version(ctx context.Context) (Version, error) {
	return get[Version](ctx, c, http.MethodGet, "/version", nil)
}

// Drain makes the daemon hand back its work and end.
func (c *Client) Drain(ctx context.Context) (Drained, error) {
	return get[Drained](ctx, c, http.MethodPost, "/drain", nil)
}
