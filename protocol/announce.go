package protocol

import (
	"fmt"
	"math"

	"github.com/compute-mesh/mesh/protocol/pb"
	"github.com/multiformats/go-multiaddr"
)

// SignAnnouncement gives the announcement with Raw and Signer filled in. It refuses what
// OpenAnnouncement would refuse: with many long addresses that can be its size, and the
// caller names fewer of them then.
func SignAnnouncement(s Signer, a Announcement) (Announcement, error) {
	if err := a.validate(); err != nil {
		return Announcement{}, err
	}
	keepers := make([]*pb.KeeperAddrs, len(a.Keepers))
	for i, k := range a.Keepers {
		keepers[i] = &pb.KeeperAddrs{Peer: []byte(k.Peer)}
		for _, addr := range k.Addrs {
			keepers[i].Addrs = append(keepers[i].Addrs, addr.Bytes())
		}
	}
	payload, err := marshal("announcement", &pb.Announcement{Job: []byte(a.Job), Owner: []byte(a.Owner),
		Memory: a.Memory, Tasks: a.Tasks, Priority: a.Priority, Time: a.Time, Expires: a.Expires, Keepers: keepers})
	if err != nil {
		return Announcement{}, err
	}
	raw, _, err := signEnvelope(s, domainAnnouncement, []byte{typeLetter, codeAnnouncement}, payload)
	if err != nil {
		return Announcement{}, err
	}
	if len(raw) > MaxAnnouncement {
		return Announcement{}, fault("announcement", fmt.Sprintf("%d bytes, at most %d", len(raw), MaxAnnouncement), ErrSize)
	}
	a.Raw, a.Signer = raw, s.ID()
	return a, nil
}

// OpenAnnouncement checks a signed announcement with Ed25519. See
// Codec.OpenAnnouncement.
func OpenAnnouncement(raw []byte) (Announcement, error) { return Codec{}.OpenAnnouncement(raw) }

// OpenAnnouncement checks the bytes of a signed announcement, which belong to it from
// then on.
func (c Codec) OpenAnnouncement(raw []byte) (Announcement, error) {
	e, err := c.openTyped(raw, "announcement", domainAnnouncement, codeAnnouncement, MaxAnnouncement)
	if err != nil {
		return Announcement{}, err
	}
	var m pb.Announcement
	if err := unmarshal("announcement", e.payload, &m); err != nil {
		return Announcement{}, err
	}
	if len(m.Keepers) > MaxAnnouncedKeepers {
		return Announcement{}, fault("announcement", "too many keepers", ErrSize)
	}
	a := Announcement{Raw: raw, Signer: e.signer, Job: JobID(m.Job), Owner: PeerID(m.Owner), Memory: m.Memory,
		Tasks: m.Tasks, Priority: m.Priority, Time: m.Time, Expires: m.Expires}
	for _, k := range m.Keepers {
		keeper, err := keeperFromWire(k)
		if err != nil {
			return Announcement{}, err
		}
		a.Keepers = append(a.Keepers, keeper)
	}
	if err := a.validate(); err != nil {
		return Announcement{}, err
	}
	return a, nil
}

func keeperFromWire(m *pb.KeeperAddrs) (KeeperAddrs, error) {
	if len(m.Addrs) > MaxAnnouncedAddrs {
		return KeeperAddrs{}, fault("announcement", "too many addresses", ErrSize)
	}
	k := KeeperAddrs{Peer: PeerID(m.Peer)}
	for _, b := range m.Addrs {
		addr, err := multiaddr.NewMultiaddrBytes(b)
		if err != nil {
			return KeeperAddrs{}, fault("announcement", "address: "+err.Error(), ErrEncoding)
		}
		k.Addrs = append(k.Addrs, addr)
	}
	return k, nil
}

func (a *Announcement) validate() error {
	v := check{subject: "announcement"}
	v.job(a.Job)
	v.that(ValidPeer(a.Owner), "owner is no Ed25519 key")
	v.that(a.Memory <= math.MaxInt64, "memory over the limit")
	v.that(a.Tasks <= MaxStages*MaxTasks, "tasks over the limit")
	v.that(a.Time > 0, "no time")
	v.that(a.Expires > a.Time, "expires before it was made")
	v.that(len(a.Keepers) <= MaxAnnouncedKeepers, "too many keepers")
	for _, k := range a.Keepers {
		v.that(ValidPeer(k.Peer), "a keeper is no Ed25519 peer")
		v.that(len(k.Addrs) <= MaxAnnouncedAddrs, "too many addresses")
		for _, addr := range k.Addrs {
			v.that(len(addr) > 0, "an empty address")
		}
	}
	return v.err
}
