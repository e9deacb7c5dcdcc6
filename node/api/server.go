package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"
)

// maxRequest bounds a request that is not an import: a submit with 10,000 files of
// 200 bytes each fits twice.
const maxRequest = 4 << 20

// headerTimeout is how long a client may take to send a request's head: on a local
// socket anything but at once is a broken client.
const headerTimeout = 10 * time.Second

// NewServer gives an HTTP server for a Listener. Faults of handlers go to log.
func NewServer(b Backend, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           NewHandler(b),
		ReadHeaderTimeout: headerTimeout,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}

// NewHandler serves the API from b. The context of each call ends when its client goes.
func NewHandler(b Backend) http.Handler {
	h := &handler{b}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/import", h.importItems)
	mux.HandleFunc("POST /v1/jobs", body(b.Submit))
	mux.HandleFunc("GET /v1/jobs", h.jobs)
	mux.HandleFunc("GET /v1/jobs/{id}", byID(b.Status))
	mux.HandleFunc("GET /v1/jobs/{id}/accepted", byID(b.Accepted))
	mux.HandleFunc("GET /v1/jobs/{id}/stopped", byID(b.Stopped))
	mux.HandleFunc("GET /v1/jobs/{id}/why", byID(b.Why))
	mux.HandleFunc("GET /v1/jobs/{id}/watch", h.watch)
	mux.HandleFunc("GET /v1/jobs/{id}/logs", h.logs)
	mux.HandleFunc("GET /v1/jobs/{id}/results", h.results)
	mux.HandleFunc("POST /v1/jobs/{id}/control", h.control)
	mux.HandleFunc("GET /v1/cat/{id}", h.cat)
	mux.HandleFunc("POST /v1/pin/{id}", byID(done(b.Pin)))
	mux.HandleFunc("POST /v1/unpin/{id}", byID(done(b.Unpin)))
	mux.HandleFunc("GET /v1/store", plain(b.Store))
	mux.HandleFunc("POST /v1/gc", plain(b.GC))
	mux.HandleFunc("GET /v1/id", plain(b.ID))
	mux.HandleFunc("GET /v1/peers", h.peers)
	mux.HandleFunc("GET /v1/doctor", h.doctor)
	mux.HandleFunc("POST /v1/connect", body(func(ctx context.Context, r connectRequest) (Peer, error) {
		return b.Connect(ctx, r.Addr)
	}))
	mux.HandleFunc("POST /v1/testnet/refuse", body(func(ctx context.Context, r refuseRequest) (struct{}, error) {
		return struct{}{}, b.Refuse(ctx, r.Peers)
	}))
	mux.HandleFunc("GET /v1/self", plain(b.Self))
	mux.HandleFunc("GET /v1/version", plain(b.Version))
	mux.HandleFunc("POST /v1/drain", plain(b.Drain))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, Errorf(KindUnsupported, "this meshd does not know %s %s", r.Method, r.URL.Path).
			WithAdvice("mesh and meshd are of different versions; install the same"))
	})
	return mux
}

type handler struct{ b Backend }

// The envelopes of requests and answers that are no type of their own.
type (
	connectRequest struct {
		Addr string `json:"addr"`
	}
	refuseRequest struct {
		Peers []string `json:"peers"`
	}
	controlRequest struct {
		Verb Verb `json:"verb"`
	}
	errorReply struct {
		Error *Error `json:"error"`
	}
	// line is one line of a JSON stream.
	line[T any] struct {
		Value *T     `json:"value,omitempty"`
		Error *Error `json:"error,omitempty"`
	}
)

// JobList, PeerList and Checkup are lists, named so that fields can be added.
type (
	JobList struct {
		Jobs []Summary `json:"jobs"`
	}
	PeerList struct {
		Peers []Peer `json:"peers"`
	}
	Checkup struct {
		Checks []Check `json:"checks"`
	}
)

// plain serves a call without arguments.
func plain[T any](call func(context.Context) (T, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := call(r.Context())
		answer(w, v, err)
	}
}

// byID serves a call whose argument is in the path.
func byID[T any](call func(context.Context, string) (T, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := call(r.Context(), r.PathValue("id"))
		answer(w, v, err)
	}
}

// body serves a call whose argument is the request's JSON.
func body[Q, T any](call func(context.Context, Q) (T, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q Q
		if err := decode(w, r, &q); err != nil {
			refuse(w, err)
			return
		}
		v, err := call(r.Context(), q)
		answer(w, v, err)
	}
}

// done gives a call that returns only an error an empty answer.
func done(call func(context.Context, string) error) func(context.Context, string) (struct{}, error) {
	return func(ctx context.Context, id string) (struct{}, error) { return struct{}{}, call(ctx, id) }
}

func decode(w http.ResponseWriter, r *http.Request, v any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		var tooBig *http.MaxBytesError
		if errors.As(err, &tooBig) {
			return Errorf(KindInvalid, "the request is longer than %d bytes", maxRequest)
		}
		return Errorf(KindInvalid, "the request can't be read: %w", err)
	}
	return nil
}

func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v) // an error means that the client is gone
}

func refuse(w http.ResponseWriter, err error) {
	e := asError(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.Kind.status())
	json.NewEncoder(w).Encode(errorReply{e})
}

func (h *handler) jobs(w http.ResponseWriter, r *http.Request) {
	jobs, err := h.b.Jobs(r.Context())
	answer(w, JobList{append([]Summary{}, jobs...)}, err)
}

func (h *handler) peers(w http.ResponseWriter, r *http.Request) {
	peers, err := h.b.Peers(r.Context())
	answer(w, PeerList{append([]Peer{}, peers...)}, err)
}

func (h *handler) doctor(w http.ResponseWriter, r *http.Request) {
	checks, err := h.b.Doctor(r.Context())
	answer(w, Checkup{append([]Check{}, checks...)}, err)
}

func (h *handler) control(w http.ResponseWriter, r *http.Request) {
	var q controlRequest
	if err := decode(w, r, &q); err != nil {
		refuse(w, err)
		return
	}
	v, err := h.b.Control(r.Context(), r.PathValue("id"), q.Verb)
	answer(w, v, err)
}

func (h *handler) watch(w http.ResponseWriter, r *http.Request) {
	out := &lineWriter{w: w}
	out.finish(h.b.Watch(r.Context(), r.PathValue("id"), func(s Status) error { return send(out, &s) }))
}

func (h *handler) logs(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	o := LogsOptions{Stage: q.Get("stage"), Follow: q.Has("follow")}
	if q.Has("task") {
		n, err := strconv.ParseUint(q.Get("task"), 10, 64)
		if err != nil {
			refuse(w, Errorf(KindInvalid, "task %q is no number", q.Get("task")))
			return
		}
		o.Task = &n
	}
	out := &lineWriter{w: w}
	out.finish(h.b.Logs(r.Context(), r.PathValue("id"), o, func(e LogEntry) error { return send(out, &e) }))
}

// lineWriter sends JSON lines. Until the first one, an error is an ordinary refusal.
type lineWriter struct {
	w     http.ResponseWriter
	begun bool
}

func send[T any](l *lineWriter, v *T) error {
	l.begin()
	if err := json.NewEncoder(l.w).Encode(line[T]{Value: v}); err != nil {
		return Errorf(KindCanceled, "the client is gone: %w", err)
	}
	return http.NewResponseController(l.w).Flush()
}

func (l *lineWriter) begin() {
	if !l.begun {
		l.w.Header().Set("Content-Type", "application/jsonl")
		l.begun = true
	}
}

func (l *lineWriter) finish(err error) {
	switch {
	case err == nil:
		l.begin()
	case !l.begun:
		refuse(l.w, err)
	default:
		json.NewEncoder(l.w).Encode(line[struct{}]{Error: asError(err)})
	}
}

// importItems reads the stream of an import. An error may come before the client has
// sent all: it is answered at once, and the rest is read away until the client stops.
func (h *handler) importItems(w http.ResponseWriter, r *http.Request) {
	if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
		refuse(w, err)
		return
	}
	q := r.URL.Query()
	src := &streamSource{newStreamReader(r.Body)}
	got, err := h.b.Import(r.Context(), ImportOptions{Form: Form(q.Get("form")), Split: q.Get("split")}, src)
	if err == nil {
		io.Copy(io.Discard, r.Body) // what is left unread would reset the connection
		answer(w, got, nil)
		return
	}
	w.Header().Set("Connection", "close")
	refuse(w, err)
	http.NewResponseController(w).Flush()
	io.Copy(io.Discard, r.Body)
}

// streamSource is the Source that a backend reads an import from.
type streamSource struct{ *streamReader }

var _ Source = (*streamSource)(nil)

func (s *streamSource) Next() (Item, error) {
	var i Item
	err := s.next(&i)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = Errorf(KindCanceled, "the import was broken off by its client: %w", err)
	}
	return i, err
}

func (h *handler) cat(w http.ResponseWriter, r *http.Request) {
	out := &outputWriter{w: w}
	err := h.b.Cat(r.Context(), r.PathValue("id"), out)
	out.finish(nil, err)
}

func (h *handler) results(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	o := ResultsOptions{Wait: q.Has("wait"), Partial: q.Has("partial"), Files: q.Has("files")}
	out := &outputWriter{w: w}
	summary, err := h.b.Results(r.Context(), r.PathValue("id"), o, out)
	out.finish(summary, err)
}

// outputWriter sends a stream. Until its first byte, an error is an ordinary refusal.
type outputWriter struct {
	w http.ResponseWriter
	s *streamWriter
}

var _ ResultsSink = (*outputWriter)(nil)

func (o *outputWriter) stream() *streamWriter {
	if o.s == nil {
		o.w.Header().Set("Content-Type", "application/octet-stream")
		o.s = newStreamWriter(o.w)
	}
	return o.s
}

func (o *outputWriter) Begin(i ResultsInfo) error { return o.stream().header(i) }

func (o *outputWriter) Output(out Output, r io.Reader) error {
	if err := o.stream().header(out); err != nil {
		return err
	}
	n, err := io.Copy(o.s, r)
	if err == nil && uint64(n) != out.Bytes {
		err = Errorf(KindInternal, "output of task %d has %d bytes, %d were announced", out.Task, n, out.Bytes)
	}
	return err
}

func (o *outputWriter) Write(p []byte) (int, error) { return o.stream().Write(p) }

func (o *outputWriter) finish(trailer any, err error) {
	switch {
	case err == nil:
		o.stream().end(trailer)
	case o.s == nil:
		refuse(o.w, err)
	default:
		o.s.fail(asError(err))
	}
}
