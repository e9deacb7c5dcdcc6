package market

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/compute-mesh/mesh/protocol"
)

// announce asks the driver to announce the job by gossip.
func (s *swarm) announce() {
	m := s.manifest()
	a := protocol.Announcement{
		Job: s.id, Owner: m.Owner, Priority: m.Priority, Time: s.m.now.Unix, Expires: m.Expires.UnixMilli(),
	}
	for i := range m.Stages {
		a.Tasks += m.Stages[i].Tasks
		a.Memory = max(a.Memory, m.Stages[i].Limits.Memory)
	}
	keepers := s.live()
	keepers = append([]protocol.PeerID{s.m.self}, slices.DeleteFunc(keepers, func(p protocol.PeerID) bool { return p == s.m.self })...)
	for _, k := range keepers[:min(len(keepers), protocol.MaxAnnouncedKeepers)] {
		a.Keepers = append(a.Keepers, protocol.KeeperAddrs{Peer: k})
	}
	s.m.out.Announce = append(s.m.out.Announce, Announce{a})
	s.spread = s.m.now.Mono + s.m.cfg.Reannounce + s.m.jitter(s.m.cfg.Reannounce/4)
	s.wakeAt(s.spread)
}

// announceTick has keepers of an open job share one announcement a minute: whoever
// hears another's waits anew.
func (s *swarm) announceTick() {
	if s.keep == nil || !s.acting() {
		return
	}
	if s.m.now.Mono >= s.spread {
		s.announce()
	}
	s.wakeAt(s.spread)
}

// announced takes a job heard of. A peer that could run its tasks gets its manifest.
func (m *Machine) announced(a protocol.Announcement) error {
	if a.Expires <= m.now.Unix {
		return fmt.Errorf("market: announcement of %s: %w", a.Job, ErrExpired)
	}
	var keepers []protocol.PeerID
	for _, k := range a.Keepers {
		keepers = append(keepers, k.Peer)
	}
	s := m.swarms[a.Job]
	if _, over := m.finals[a.Job]; over || s != nil && !s.running() {
		for _, k := range keepers { // who announces it was away when it ended
			if m.up[k] {
				m.remind(k, a.Job)
			}
		}
		return nil
	}
	if old := m.table[a.Job]; old == nil || old.Time < a.Time {
		m.enter(&a)
	}
	if s != nil {
		s.hear(keepers)
		s.spread = m.now.Mono + m.cfg.Reannounce + m.jitter(m.cfg.Reannounce/4)
		return nil
	}
	if m.leaving || m.cfg.Slots == 0 || a.Memory > m.cfg.Memory {
		return nil
	}
	m.learnJob(a.Job, keepers, func(s *swarm, err error) {
		if err == nil {
			s.hear(keepers)
		}
	})
	return nil
}

// enter puts an announcement into the table. A full table loses the oldest.
func (m *Machine) enter(a *protocol.Announcement) {
	if m.table[a.Job] == nil && len(m.table) >= MaxAnnounced {
		oldest := slices.MinFunc(sortedKeys(m.table), func(x, y protocol.JobID) int {
			return cmp.Compare(m.table[x].Time, m.table[y].Time)
		})
		delete(m.table, oldest)
	}
	m.table[a.Job] = a
}

// learnJob gets a job's manifest and joins its swarm. Several that ask for the same
// job wait for one fetch.
func (m *Machine) learnJob(id protocol.JobID, from []protocol.PeerID, then func(*swarm, error)) {
	if s := m.swarms[id]; s != nil {
		then(s, nil)
		return
	}
	waiting, under := m.learning[id]
	m.learning[id] = append(waiting, then)
	if under {
		return
	}
	m.fetch(Fetch{Kind: FetchManifest, Job: id, From: from}, func(f Fetched) {
		waiting := m.learning[id]
		delete(m.learning, id)
		s, err := m.swarms[id], f.Err
		if err == nil && f.Job == nil {
			err = fmt.Errorf("market: manifest of %s: %w", id, ErrNoJob)
		}
		if s == nil && err == nil {
			s, err = m.join(f.Job)
		}
		for _, then := range waiting {
			then(s, err)
		}
	})
}

// sendJobs gives a neighbour the table of open jobs.
func (m *Machine) sendJobs(to protocol.PeerID) {
	var list []protocol.Announcement
	for _, id := range sortedKeys(m.table) {
		if a := m.table[id]; a.Expires > m.now.Unix && len(a.Raw) > 0 {
			list = append(list, *a)
		} else if a.Expires <= m.now.Unix {
			delete(m.table, id)
		}
	}
	for part := range slices.Chunk(list, protocol.MaxJobs) {
		m.send(to, &protocol.Jobs{Announcements: part})
	}
}

// askForJobs asks one neighbour after another for open jobs: gossip may have missed us.
func (m *Machine) askForJobs() {
	m.poll = m.now.Mono + m.jitter(m.cfg.Poll)
	peers := sortedKeys(m.up)
	if len(peers) == 0 || len(m.runs) > 0 || m.cfg.Slots == 0 {
		return
	}
	m.send(peers[m.random()%uint64(len(peers))], &protocol.JobsRequest{})
}
