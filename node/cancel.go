package node

import (
	"context"
	"slices"
	"time"

	"github.com/compute-mesh/mesh/node/api"
	"github.com/compute-mesh/mesh/protocol"
)

// Stopped implements api.Jobs: it looks until nobody is missing, or for api.StopWait.
func (b *backend) Stopped(ctx context.Context, text string) (api.Stopped, error) {
	patience, cancel := context.WithTimeout(ctx, api.StopWait)
	defer cancel()
	look := time.NewTicker(api.StopWait / 20)
	defer look.Stop()
	involved := make(map[string]bool) // a peer that was seen to have a part stays in the list
	for {
		v, signed, err := b.known(ctx, text)
		if err != nil {
			return api.Stopped{}, err
		}
		if v.state() != protocol.JobCancelled {
			return api.Stopped{}, api.Errorf(api.KindConflict, "job %s is %s, not cancelled", signed.ID, stateOf(v))
		}
		s := api.Stopped{Job: signed.ID.String(), Stopped: append([]string{}, v.Stopped...), Missing: []string{}}
		for p, r := range b.n.workers(patience, signed.ID) {
			involved[p.String()] = involved[p.String()] || len(r.Running) > 0
		}
		for _, k := range v.Keepers {
			involved[k] = true
		}
		for _, share := range v.Shares {
			involved[share.Peer] = true
		}
		for p, has := range involved {
			if has && !slices.Contains(s.Stopped, p) {
				s.Missing = append(s.Missing, p)
			}
		}
		slices.Sort(s.Missing)
		if len(s.Missing) == 0 || patience.Err() != nil {
			return s, nil
		}
		select {
		case <-look.C:
		case <-patience.Done():
		}
		if err := ctx.Err(); err != nil {
			return s, err
		}
	}
}
