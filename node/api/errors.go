package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// Kind says what sort of failure an Error is. The values travel as text and are never
// given another meaning.
type Kind string

const (
	KindInvalid     Kind = "invalid"     // the request can never work: bad flag, program, name or CID
	KindNotFound    Kind = "not_found"   // no such job, task, CID or peer is known or could be found
	KindQuota       Kind = "quota"       // no room: a quota, a size limit or the disk
	KindUnavailable Kind = "unavailable" // might work later: no peers, chunks not reachable, shutting down
	KindConflict    Kind = "conflict"    // the state forbids it: cancelling a job that is done, a second daemon
	KindForbidden   Kind = "forbidden"   // needs the owner's key, or a testnet
	KindUnfinished  Kind = "unfinished"  // results of a job that has not ended
	KindFailed      Kind = "failed"      // the job itself failed or was cancelled
	KindCanceled    Kind = "canceled"    // the caller went away or ran out of time
	KindUnsupported Kind = "unsupported" // this version cannot do it
	KindUnreachable Kind = "unreachable" // no daemon answers; made by the client, never sent
	KindInternal    Kind = "internal"    // a fault of this program
)

// Error is a failure that keeps its kind over the wire.
type Error struct {
	Kind    Kind   `json:"kind"`
	Message string `json:"message"`          // what happened, and where
	Advice  string `json:"advice,omitempty"` // what to do next
	cause   error
}

// Errorf makes an Error; a %w in the format is kept as its cause on this side of the wire.
func Errorf(kind Kind, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: kind, Message: err.Error(), cause: errors.Unwrap(err)}
}

// WithAdvice gives a copy of e that says what to do next.
func (e *Error) WithAdvice(format string, args ...any) *Error {
	c := *e
	c.Advice = fmt.Sprintf(format, args...)
	return &c
}

func (e *Error) Error() string { return e.Message }

func (e *Error) Unwrap() error { return e.cause }

// KindOf is the kind of err: of the first Error in its chain, KindCanceled for an ended
// context, else KindInternal. A nil err has none.
func KindOf(err error) Kind {
	if err == nil {
		return ""
	}
	return asError(err).Kind
}

// asError gives err the form in which it is sent.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		if e.Message == err.Error() {
			return e
		}
		return &Error{Kind: e.Kind, Message: err.Error(), Advice: e.Advice, cause: err}
	}
	kind := KindInternal
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		kind = KindCanceled
	}
	return &Error{Kind: kind, Message: err.Error(), cause: err}
}

// status is the HTTP status that goes with a kind; clients decide by the kind alone.
func (k Kind) status() int {
	switch k {
	case KindInvalid:
		return http.StatusBadRequest
	case KindNotFound:
		return http.StatusNotFound
	case KindQuota:
		return http.StatusInsufficientStorage
	case KindUnavailable, KindCanceled:
		return http.StatusServiceUnavailable
	case KindConflict, KindUnfinished, KindFailed:
		return http.StatusConflict
	case KindForbidden:
		return http.StatusForbidden
	case KindUnsupported:
		return http.StatusNotImplemented
	default:
		return http.StatusInternalServerError
	}
}
