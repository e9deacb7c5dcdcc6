package node

import (
	"github.com/compute-mesh/mesh/chunkstore"
	"github.com/compute-mesh/mesh/dht"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics shows the peer's counters to Prometheus. They are read when they are asked for.
type metrics struct{ n *Node }

var _ prometheus.Collector = metrics{}

// snapshot is all that the metrics are made of, taken at one moment.
type snapshot struct {
	n                *Node
	running, waiting int
	jobs             int
	store            chunkstore.Usage
	health           chunkstore.Health
	exchange         chunkstore.Stats
	net              dht.Stats
	commits, gaps    uint64
	journal          int64
}

// metric is one time series.
type metric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	label string
	value func(*snapshot) float64
}

func counter(name, help, label, labelValue string, value func(*snapshot) float64) metric {
	return newMetric(name, help, label, labelValue, prometheus.CounterValue, value)
}

func gauge(name, help string, value func(*snapshot) float64) metric {
	return newMetric(name, help, "", "", prometheus.GaugeValue, value)
}

func newMetric(name, help, label, labelValue string, kind prometheus.ValueType, value func(*snapshot) float64) metric {
	var labels []string
	if label != "" {
		labels = []string{label}
	}
	return metric{prometheus.NewDesc("mesh_"+name, help, labels, nil), kind, labelValue, value}
}

// series is every time series of a peer. Names are an interface: they are only added to.
func series() []metric {
	const ended, endedHelp = "tasks_total", "Runs of tasks that have ended here, by how."
	const rows, rowsHelp = "task_rows_total", "Rows of brief tasks that ran here, by whether they came to one that was not brief."
	const checks, checksHelp = "checkpoints_total", "Checkpoints of tasks that ran here: stored or not, gone on from or of no use."
	const moved, movedHelp = "chunk_bytes_total", "Payload of chunks moved between this peer and others."
	const net, netHelp = "network_bytes_total", "Payload of all streams between this peer and others."
	const messages, messagesHelp = "swarm_messages_total", "Messages between members of jobs, by what became of them."
	const gossip, gossipHelp = "announcements_total", "Announcements of jobs by gossip, by what became of them."
	return []metric{
		counter(ended, endedHelp, "outcome", "done", func(s *snapshot) float64 { return float64(s.n.runner.count.done.Load()) }),
		counter(ended, endedHelp, "outcome", "failed", func(s *snapshot) float64 { return float64(s.n.runner.count.failed.Load()) }),
		counter(ended, endedHelp, "outcome", "released", func(s *snapshot) float64 { return float64(s.n.runner.count.released.Load()) }),
		counter(ended, endedHelp, "outcome", "stopped", func(s *snapshot) float64 { return float64(s.n.runner.count.stopped.Load()) }),
		counter(rows, rowsHelp, "event", "whole", func(s *snapshot) float64 { return float64(s.n.runner.count.rows.Load()) }),
		counter(rows, rowsHelp, "event", "broken", func(s *snapshot) float64 { return float64(s.n.runner.count.broken.Load()) }),
		counter(checks, checksHelp, "event", "stored", func(s *snapshot) float64 { return float64(s.n.runner.checkpoints.stored.Load()) }),
		counter(checks, checksHelp, "event", "unstored", func(s *snapshot) float64 { return float64(s.n.runner.checkpoints.unstored.Load()) }),
		counter(checks, checksHelp, "event", "restored", func(s *snapshot) float64 { return float64(s.n.runner.checkpoints.restored.Load()) }),
		counter(checks, checksHelp, "event", "useless", func(s *snapshot) float64 { return float64(s.n.runner.checkpoints.useless.Load()) }),
		counter("task_seconds_total", "Wall time of the programs run here.", "", "", func(s *snapshot) float64 { return float64(s.n.runner.count.wall.Load()) / 1e9 }),
		gauge("tasks_running", "Tasks that run here now.", func(s *snapshot) float64 { return float64(s.running) }),
		gauge("tasks_waiting", "Tasks that wait here for a slot.", func(s *snapshot) float64 { return float64(s.waiting) }),
		gauge("slots", "Tasks that may run here at once.", func(s *snapshot) float64 { return float64(s.n.cfg.Slots) }),
		gauge("jobs", "Jobs that this peer has a part in, ended ones included.", func(s *snapshot) float64 { return float64(s.jobs) }),
		gauge("peers", "Connected peers of the mesh.", func(s *snapshot) float64 { return float64(s.net.Peers) }),
		counter(net, netHelp, "direction", "in", func(s *snapshot) float64 { return float64(s.net.Bytes.In) }),
		counter(net, netHelp, "direction", "out", func(s *snapshot) float64 { return float64(s.net.Bytes.Out) }),
		counter(moved, movedHelp, "direction", "in", func(s *snapshot) float64 { return float64(s.exchange.Total.BytesIn) }),
		counter(moved, movedHelp, "direction", "out", func(s *snapshot) float64 { return float64(s.exchange.Total.BytesOut) }),
		counter("chunk_bytes_wasted_total", "Chunk bytes received that were of no use.", "", "", func(s *snapshot) float64 { return float64(s.exchange.Total.Wasted) }),
		gauge("store_chunks", "Chunks in the store.", func(s *snapshot) float64 { return float64(s.store.Chunks) }),
		gauge("store_bytes", "Bytes that the store takes of its quota.", func(s *snapshot) float64 { return float64(s.store.Used) }),
		gauge("store_quota_bytes", "The store's quota.", func(s *snapshot) float64 { return float64(s.store.Quota) }),
		counter("chunks_scrubbed_total", "Chunks that were read only to check them.", "", "", func(s *snapshot) float64 { return float64(s.health.Scrubbed) }),
		counter("chunks_damaged_total", "Chunks found damaged or gone when something looked at them, and dropped.", "", "", func(s *snapshot) float64 { return float64(s.health.Damaged) }),
		counter("journal_commits_total", "Durable writes of the journal.", "", "", func(s *snapshot) float64 { return float64(s.commits) }),
		gauge("journal_bytes", "Size of the journal.", func(s *snapshot) float64 { return float64(s.journal) }),
		gauge("inputs_waiting", "Inputs that wait for the state machine.", func(s *snapshot) float64 { return float64(len(s.n.driver.steps)) }),
		counter("time_gaps_total", "Times that this machine was found to have been stopped or asleep.", "", "", func(s *snapshot) float64 { return float64(s.gaps) }),
		counter("fetches_failed_total", "Fetches of chunks for a job that failed.", "", "", func(s *snapshot) float64 { return float64(s.n.fetcher.failed.Load()) }),
		counter(messages, messagesHelp, "event", "sent", func(s *snapshot) float64 { return float64(s.n.swarm.count.sent.Load()) }),
		counter(messages, messagesHelp, "event", "received", func(s *snapshot) float64 { return float64(s.n.swarm.count.received.Load()) }),
		counter(messages, messagesHelp, "event", "dropped", func(s *snapshot) float64 { return float64(s.n.swarm.count.dropped.Load()) }),
		counter(messages, messagesHelp, "event", "malformed", func(s *snapshot) float64 { return float64(s.n.swarm.count.malformed.Load()) }),
		gauge("swarm_queued_bytes", "Bytes of messages that wait to be sent.", func(s *snapshot) float64 { return float64(s.n.swarm.queued()) }),
		counter(gossip, gossipHelp, "event", "delivered", func(s *snapshot) float64 { return float64(s.net.AnnouncementsDelivered) }),
		counter(gossip, gossipHelp, "event", "rejected", func(s *snapshot) float64 { return float64(s.net.AnnouncementsRejected) }),
		counter(gossip, gossipHelp, "event", "duplicate", func(s *snapshot) float64 { return float64(s.net.AnnouncementsDuplicate) }),
		counter(gossip, gossipHelp, "event", "dropped", func(s *snapshot) float64 { return float64(s.net.AnnouncementsDropped) }),
		counter(gossip, gossipHelp, "event", "undelivered", func(s *snapshot) float64 { return float64(s.net.AnnouncementsUndelivered) }),
	}
}

// Describe implements prometheus.Collector.
func (c metrics) Describe(out chan<- *prometheus.Desc) {
	seen := make(map[string]bool)
	for _, m := range series() {
		if text := m.desc.String(); !seen[text] {
			seen[text] = true
			out <- m.desc
		}
	}
}

// Collect implements prometheus.Collector.
func (c metrics) Collect(out chan<- prometheus.Metric) {
	n := c.n
	s := &snapshot{n: n, store: n.store.Usage(), health: n.store.Health(), exchange: n.exchange.Stats(), net: n.net.Stats()}
	s.running, s.waiting = n.runner.levels()
	s.commits, s.journal = n.journal.commits.Load(), n.journal.size.Load()
	s.gaps = n.driver.gaps.Load()
	_ = n.driver.ask(n.ctx, func(m machine) { s.jobs = len(m.Jobs()) })
	for _, m := range series() {
		var labels []string
		if m.label != "" {
			labels = []string{m.label}
		}
		out <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(s), labels...)
	}
}
