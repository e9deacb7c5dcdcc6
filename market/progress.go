package market

import (
	"time"

	"github.com/compute-mesh/mesh/protocol"
)

// A holder that lives, and says so, may still do nothing: its program hangs beyond its time
// limit, its slots are taken, it has a fault of its own. So the keepers that judge it look
// for progress too: a result, a checkpoint, or tasks that run within their time limit. Who
// shows none for Config.Idle, or four times as long as a task is expected to take, is
// released; what it runs goes on, and a result counts.

// slackTasks is how many tasks' time a holder has without showing progress.
const slackTasks = 4

// ran notes that a member's beat tells of tasks that run, within their time limit.
func (s *swarm) ran(w *member) {
	began := map[taskKey]time.Duration{}
	for i := range w.work {
		stage := w.work[i].Stage.Stage
		if int(stage) >= len(s.manifest().Stages) {
			continue
		}
		limit := s.manifest().Stages[stage].Limits.Timeout
		for _, t := range w.work[i].Running {
			k := taskKey{stage, t}
			since, known := w.began[k]
			if !known {
				since = s.m.now.Mono
			}
			began[k] = since
			if s.m.now.Mono-since <= limit {
				w.did = s.m.now.Mono
			}
		}
	}
	w.began = began
}

// did notes a result or a checkpoint of a member.
func (s *swarm) did(p protocol.PeerID) {
	if w := s.watch.members[p]; w != nil {
		w.did = s.m.now.Mono
	}
}

// idle tells whether a holder that this peer judges shows no progress.
func (s *swarm) idle(h protocol.PeerID) bool {
	w := s.watch.members[h]
	if w == nil {
		return false
	}
	if s.paused() {
		w.did = s.m.now.Mono
	}
	due := max(s.watch.holders[h], w.did) + s.slack(w)
	s.wakeAt(due)
	return s.m.now.Mono >= due
}

// slack is how long a holder may show no progress.
func (s *swarm) slack(w *member) time.Duration {
	d := s.m.cfg.Idle
	for i := range w.work {
		if sh := s.share(w.work[i].Stage); sh != nil {
			d = max(d, slackTasks*max(sh.pace().task(), drain(1, w.work[i].Rate)))
		}
	}
	return d
}
