package node

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/compute-mesh/mesh/chunkstore"
	"github.com/compute-mesh/mesh/dht"
	"github.com/compute-mesh/mesh/job"
	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/node/api"
	"github.com/compute-mesh/mesh/protocol"
	"github.com/compute-mesh/mesh/sandbox"
	"github.com/ipfs/go-cid"
)

// backend serves the control API.
type backend struct {
	n     *Node
	rates *rates
}

var _ api.Backend = (*backend)(nil)

func newBackend(n *Node) *backend {
	return &backend{n: n, rates: &rates{jobs: make(map[protocol.JobID][]sample)}}
}

const noRoomAdvice = "free some disk where meshd's home is: it goes on by itself when there is room"

// kinds are the kinds that errors of the parts have for a user, and what to do about them.
var kinds = []struct {
	err    error
	kind   api.Kind
	advice string
}{
	{chunkstore.ErrQuota, api.KindQuota, "start meshd with a larger --quota, or cancel jobs that are no longer wanted"},
	{syscall.ENOSPC, api.KindQuota, noRoomAdvice},
	{syscall.EDQUOT, api.KindQuota, noRoomAdvice},
	{chunkstore.ErrUnavailable, api.KindUnavailable, "is the CID right? `mesh peers` shows who is connected: a peer that has it may be off"},
	{chunkstore.ErrNotFound, api.KindNotFound, ""},
	{chunkstore.ErrNotFile, api.KindInvalid, ""},
	{chunkstore.ErrMalformed, api.KindInvalid, ""},
	{chunkstore.ErrUnsupported, api.KindInvalid, ""},
	{sandbox.ErrNotProgram, api.KindInvalid, ""},
	{job.ErrMesh, api.KindInvalid, ""},
	{job.ErrMalformed, api.KindInvalid, ""},
	{job.ErrTooLarge, api.KindInvalid, ""},
	{job.ErrSignature, api.KindInvalid, ""},
	{market.ErrNoJob, api.KindNotFound, ""},
	{market.ErrExpired, api.KindConflict, ""},
	{market.ErrTooMany, api.KindQuota, ""},
	{errUnknownJob, api.KindNotFound, ""},
	{errClosing, api.KindUnavailable, ""},
	{dht.ErrSelf, api.KindInvalid, ""},
	{dht.ErrKeyType, api.KindInvalid, ""},
	{dht.ErrOtherMesh, api.KindConflict, ""},
	{dht.ErrOtherVersion, api.KindConflict, ""},
}

// explain gives an error its kind for the user.
func explain(err error) error {
	if err == nil {
		return nil
	}
	var own *api.Error
	if errors.As(err, &own) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	var fault *job.Fault
	if errors.As(err, &fault) {
		return api.Errorf(api.KindInvalid, "%w", err)
	}
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			return api.Errorf(k.kind, "%w", err).WithAdvice("%s", k.advice)
		}
	}
	return err
}

// parseJob reads a job's ID as a user types it.
func parseJob(text string) (protocol.JobID, error) {
	id, err := protocol.ParseJobID(text)
	if err != nil {
		return "", api.Errorf(api.KindInvalid, "%.80q is no job ID", text).
			WithAdvice("`mesh ls` lists the jobs that this peer knows, with their IDs")
	}
	return id, nil
}

func parseCID(text string) (cid.Cid, error) {
	c, err := cid.Decode(text)
	if err != nil {
		return cid.Undef, api.Errorf(api.KindInvalid, "%.80q is no CID", text).
			WithAdvice("a CID begins with bafk or bafy; `mesh add` prints those of files")
	}
	return c, nil
}

// known finds a job with its manifest, or says that nobody knows it.
func (b *backend) known(ctx context.Context, text string) (*view, *job.Signed, error) {
	id, err := parseJob(text)
	if err != nil {
		return nil, nil, err
	}
	v, err := b.n.find(ctx, id)
	if err != nil {
		return nil, nil, explain(err)
	}
	if v == nil {
		return nil, nil, api.Errorf(api.KindNotFound, "no job %s is known here or at a peer that answers", id).
			WithAdvice("see with `mesh peers` whether this peer is connected; a job is forgotten some time after its end")
	}
	signed, err := b.manifest(ctx, id, v)
	if err != nil {
		return nil, nil, explain(fmt.Errorf("manifest of job %s: %w", id, err))
	}
	if len(v.Stages) != len(signed.Manifest.Stages) {
		return nil, nil, api.Errorf(api.KindInternal, "peer %s tells of %d stages of job %s, which has %d", v.peer, len(v.Stages), id, len(signed.Manifest.Stages))
	}
	return v, signed, nil
}

// manifest is the job's manifest: this peer's own, or from who told of the job.
func (b *backend) manifest(ctx context.Context, id protocol.JobID, v *view) (signed *job.Signed, err error) {
	err = b.n.driver.ask(ctx, func(m machine) {
		if own, ok := m.View(id); ok {
			signed = own.Job
		}
	})
	if err != nil || signed != nil {
		return signed, err
	}
	return openManifest(ctx, b.n.content, b.n.cfg.Mesh, id, b.n.source(id, v))
}
