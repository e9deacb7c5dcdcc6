package protocol

import (
	"errors"
	"fmt"
)

// What can be wrong with something from a peer, for errors.Is.
var (
	// ErrSize: it is larger than its limit.
	ErrSize = errors.New("too large")
	// ErrEncoding: its bytes do not have the form that SPEC.md gives.
	ErrEncoding = errors.New("malformed")
	// ErrSignature: the signature is not the signer's over these bytes for this purpose.
	ErrSignature = errors.New("wrong signature")
	// ErrInvalid: it is well formed and breaks a rule.
	ErrInvalid = errors.New("invalid")
	// ErrUnknownMessage: a message of a kind of a later version. A receiver ignores it.
	ErrUnknownMessage = errors.New("unknown message")
)

// fault is an error of the kind about the subject.
func fault(subject, what string, kind error) error {
	return fmt.Errorf("protocol: %s: %s: %w", subject, what, kind)
}

// check notes the first rule that a subject breaks.
type check struct {
	subject string
	err     error
}

// that notes that the rule is broken unless ok.
func (c *check) that(ok bool, rule string) {
	if !ok && c.err == nil {
		c.err = fault(c.subject, rule, ErrInvalid)
	}
}
