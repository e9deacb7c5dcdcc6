package node

import (
	"cmp"
	"slices"
	"sync"

	"github.com/compute-mesh/mesh/protocol"
)

const (
	// maxMoved bounds the jobs that are counted; those of long ago are forgotten together.
	maxMoved = 4096
	// maxGivers bounds the peers that are told apart in a job: more than any job has keepers. The others count as one
	// without a name.
	maxGivers = 64
)

// moved counts the bytes of chunks that came over the network, by the job that they were fetched for and the peer that
// gave them, since this peer's start. What was here already does not count. The zero value is ready.
type moved struct {
	mu   sync.Mutex
	jobs map[protocol.JobID]map[protocol.PeerID]uint64
}

// transfer is what one peer gave for a job.
type transfer struct {
	Peer  string `json:"peer,omitempty"` // empty: unknown
	Bytes uint64 `json:"bytes"`
}

func (m *moved) add(id protocol.JobID, from protocol.PeerID, bytes int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	givers, known := m.jobs[id]
	if !known {
		if m.jobs == nil || len(m.jobs) >= maxMoved {
			m.jobs = make(map[protocol.JobID]map[protocol.PeerID]uint64)
		}
		givers = make(map[protocol.PeerID]uint64)
		m.jobs[id] = givers
	}
	if _, known := givers[from]; !known && len(givers) >= maxGivers {
		from = ""
	}
	givers[from] += uint64(bytes)
}

// of lists what each peer gave for a job, in the order of their IDs.
func (m *moved) of(id protocol.JobID) (list []transfer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for p, bytes := range m.jobs[id] {
		t := transfer{Bytes: bytes}
		if p != "" {
			t.Peer = p.String()
		}
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b transfer) int { return cmp.Compare(a.Peer, b.Peer) })
	return list
}
