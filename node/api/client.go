package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"
)

// Client talks to the daemon of one home. It connects when first used, keeps its
// connections, and may be used by many goroutines.
type Client struct {
	home   string
	socket string
	http   *http.Client
}

// dialTimeout is how long a daemon may take to accept a connection. Its socket has a
// queue, so only a stopped or hung one takes any time.
const dialTimeout = 5 * time.Second

// NewClient gives a client for the daemon of a home; it does not connect.
func NewClient(home string) (*Client, error) {
	socket, _, err := SocketPath(home)
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: dialTimeout}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
		MaxIdleConns:       4,
		DisableCompression: true,
		WriteBufferSize:    streamBuffer,
		ReadBufferSize:     streamBuffer,
	}
	return &Client{home: home, socket: socket, http: &http.Client{Transport: transport}}, nil
}

// Close gives up idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// request sends a request and gives the answer's body, which the caller closes. An
// answer that is an error is returned as one.
func (c *Client) request(ctx context.Context, method, path string, body io.Reader) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://meshd/v1"+path, body)
	if err != nil {
		return nil, fmt.Errorf("api: request %s: %w", path, err)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	if res.StatusCode/100 == 2 {
		return res.Body, nil
	}
	defer res.Body.Close()
	var reply errorReply
	err = json.NewDecoder(io.LimitReader(res.Body, maxHeader)).Decode(&reply)
	if err != nil || reply.Error == nil {
		return nil, Errorf(KindInternal, "meshd on %s answered %s without saying why", c.home, res.Status)
	}
	return nil, reply.Error
}

// explain says what a failed round trip means.
func (c *Client) explain(ctx context.Context, err error) error {
	if cause := ctx.Err(); cause != nil {
		return cause
	}
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err
	}
	var own *Error
	if errors.As(err, &own) {
		return err
	}
	var op *net.OpError
	network := errors.As(err, &op)
	dial := network && op.Op == "dial"
	switch {
	case errors.Is(err, fs.ErrPermission):
		return Errorf(KindUnreachable, "no permission to use the meshd of %s: %w", c.home, err).
			WithAdvice("run mesh as the user who started meshd, or give another --home")
	case dial && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)):
		return Errorf(KindUnreachable, "no meshd runs on %s: %w", c.home, err).
			WithAdvice("start one with `meshd --home %s`, or give another --home", c.home)
	case dial:
		return Errorf(KindUnreachable, "meshd on %s does not answer: %w", c.home, err).
			WithAdvice("see whether its process is stopped")
	case network, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return Errorf(KindUnreachable, "meshd on %s ended while it was asked: %w", c.home, err).
			WithAdvice("see its log; accepted jobs go on, `mesh status JOB` on any peer shows how far they are")
	}
	return err
}

// get asks for an object.
func get[T any](ctx context.Context, c *Client, method, path string, body any) (T, error) {
	var v T
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return v, fmt.Errorf("api: request %s: %w", path, err)
		}
		r = bytes.NewReader(b)
	}
	res, err := c.request(ctx, method, path, r)
	if err != nil {
		return v, err
	}
	defer res.Close()
	if err := json.NewDecoder(res).Decode(&v); err != nil {
		return v, c.explain(ctx, cut(err))
	}
	io.Copy(io.Discard, res) // to the end, so that the connection can be used again
	return v, nil
}

// lines calls f with each value of a JSON stream.
func lines[T any](ctx context.Context, c *Client, path string, f func(T) error) error {
	res, err := c.request(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer res.Close()
	d := json.NewDecoder(res)
	for {
		var l line[T]
		switch err := d.Decode(&l); {
		case err == io.EOF:
			return nil
		case err != nil:
			return c.explain(ctx, err)
		case l.Error != nil:
			return l.Error
		case l.Value != nil:
			if err := f(*l.Value); err != nil {
				return err
			}
		}
	}
}

func jobPath(job, what string) string {
	p := "/jobs/" + url.PathEscape(job)
	if what != "" {
		p += "/" + what
	}
	return p
}
