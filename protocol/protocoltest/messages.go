package protocoltest

import (
	"github.com/compute-mesh/mesh/protocol"
	"pgregory.net/rapid"
)

// Message draws a message of any kind.
func Message(t *rapid.T) protocol.Message {
	job := Job(t)
	return rapid.SampledFrom(makers).Draw(t, "message")(t, job)
}

// makers has one function for each kind of message.
var makers = []func(*rapid.T, protocol.JobID) protocol.Message{
	news, digest, jobsRequest, jobs, workRequest, workAnswer, bid, grant, refusal, beat,
	keepRequest, keepAnswer, receiptRequest, receiptAnswer, stored, suspect, opinion, backup, replicate, acknowledge, compare,
}

// MessageKinds is how many kinds of messages there are.
func MessageKinds() int { return len(makers) }

// MessageOf draws a message of the n-th kind.
func MessageOf(t *rapid.T, n int) protocol.Message { return makers[n](t, Job(t)) }

// list draws up to n values; none is a nil slice, as decoders give it.
func list[T any](t *rapid.T, n int, draw func() T) []T {
	var l []T
	for range rapid.IntRange(0, n).Draw(t, "length") {
		l = append(l, draw())
	}
	return l
}

func news(t *rapid.T, job protocol.JobID) protocol.Message {
	return &protocol.News{Job: job, Records: list(t, 3, func() protocol.Record { return Record(t, job) })}
}

func digest(t *rapid.T, job protocol.JobID) protocol.Message {
	return &protocol.Digest{Job: job, State: Hash(t, "state"), Want: rapid.Bool().Draw(t, "want")}
}

func jobsRequest(*rapid.T, protocol.JobID) protocol.Message { return &protocol.JobsRequest{} }

func jobs(t *rapid.T, _ protocol.JobID) protocol.Message {
	return &protocol.Jobs{Announcements: list(t, 2, func() protocol.Announcement { return Announcement(t) })}
}

func workRequest(t *rapid.T, job protocol.JobID) protocol.Message {
	return &protocol.WorkRequest{Job: job, Known: Hash(t, "known")}
}

func workAnswer(t *rapid.T, job protocol.JobID) protocol.Message {
	return &protocol.WorkAnswer{Job: job, Hints: hints(t, job),
		Open: list(t, protocol.MaxOpen, func() protocol.Open {
			return protocol.Open{Stage: Stage(t, job), Life: Life(t), Range: Range(t), Epoch: Epoch(t, 0)}
		}),
		Members: rapid.Uint32().Draw(t, "members"), State: protocol.JobState(rapid.Uint8Range(1, 4).Draw(t, "state"))}
}

func hints(t *rapid.T, job protocol.JobID) []protocol.Hint {
	return list(t, protocol.MaxHints, func() protocol.Hint {
		return protocol.Hint{Holder: Peer(t, 0, 9, "holder"), Stage: Stage(t, job), Backlog: rapid.Uint64().Draw(t, "backlog"),
			Rate: rate(t), Sequence: Sequence(t), Age: rapid.Uint32().Draw(t, "age"), Tail: rapid.Uint32().Draw(t, "tail")}
	})
}

func rate(t *rapid.T) protocol.Rate { return protocol.Rate(rapid.Uint64().Draw(t, "rate")) }

func bid(t *rapid.T, job protocol.JobID) protocol.Message {
	return &protocol.Bid{Job: job, ID: Sequence(t), Slots: rapid.Uint32().Draw(t, "slots"), Rate: rate(t),
		Memory: rapid.Uint64().Draw(t, "memory"), Groups: groups(t), Stage: Stage(t, job), Drain: rapid.Uint32().Draw(t, "drain")}
}

func grant(t *rapid.T, job protocol.JobID) protocol.Message {
	signer := Signer(3)
	segment := func() protocol.Record {
		return sign(signer, &protocol.Segment{StageRef: Stage(t, job), Life: Life(t), Range: Range(t), Epoch: Epoch(t, 1),
			Holder: Signer(4).ID(), Cause: protocol.CauseGrant, Replaced: signer.ID()})
	}
	return &protocol.Grant{Job: job, Bid: Sequence(t), Segments: append(list(t, 2, segment), segment()), Left: rapid.Uint64().Draw(t, "left")}
}

func refusal(t *rapid.T, job protocol.JobID) protocol.Message {
	return &protocol.Refusal{Job: job, Bid: Sequence(t), Hints: hints(t, job)}
}

func beat(t *rapid.T, job protocol.JobID) protocol.Message {
	return &protocol.Beat{Sequence: Sequence(t), Job: job, Trouble: text(t), Work: list(t, 3, func() protocol.Work {
		return protocol.Work{Stage: Stage(t, job), Backlog: rapid.Uint64().Draw(t, "backlog"), Rate: rate(t), Tail: rapid.Uint32().Draw(t, "tail"),
			Running: list(t, 6, func() protocol.TaskIndex { return Task(t) }),
			Held: list(t, 6, func() protocol.Held {
				return protocol.Held{Life: Life(t), Range: Range(t), Epoch: Epoch(t, 0)}
			})}
	})}
}

func keepRequest(t *rapid.T, job protocol.JobID) protocol.Message {
	return &protocol.KeepRequest{Job: job, Groups: groups(t), Leaving: rapid.Bool().Draw(t, "leaving")}
}

func keepAnswer(t *rapid.T, job protocol.JobID) protocol.Message {
	return &protocol.KeepAnswer{Job: job, Accepted: rapid.Bool().Draw(t, "accepted"), Reason: text(t), Holds: rapid.Bool().Draw(t, "holds"), Groups: groups(t)}
}

func receiptRequest(t *rapid.T, _ protocol.JobID) protocol.Message {
	r := Receipt(t)
	c, b := PageChunk(t)
	return &protocol.ReceiptRequest{StageRef: r.StageRef, Life: r.Life, Range: r.Range, Page: c, Bytes: b}
}

func receiptAnswer(t *rapid.T, _ protocol.JobID) protocol.Message {
	r := Receipt(t)
	if rapid.Bool().Draw(t, "refused") {
		return &protocol.ReceiptAnswer{Job: r.Job, Page: r.Page, Reason: text(t)}
	}
	receipt, err := protocol.SignReceipt(Signer(5), r)
	if err != nil {
		panic(err)
	}
	return &protocol.ReceiptAnswer{Job: r.Job, Page: r.Page, Receipt: &receipt, Members: rapid.Uint32().Draw(t, "members")}
}

func stored(t *rapid.T, job protocol.JobID) protocol.Message {
	m := &protocol.Stored{Job: job}
	for range rapid.IntRange(0, 10).Draw(t, "pages") {
		m.Pages = append(m.Pages, CIDs(t, "page"))
	}
	return m
}

func suspect(t *rapid.T, job protocol.JobID) protocol.Message {
	return &protocol.Suspect{Job: job, Member: Peer(t, 0, 9, "member")}
}

func opinion(t *rapid.T, job protocol.JobID) protocol.Message {
	return &protocol.Opinion{Job: job, Member: Peer(t, 0, 9, "member"), Alive: rapid.Bool().Draw(t, "alive")}
}

func backup(t *rapid.T, job protocol.JobID) protocol.Message {
	return &protocol.Backup{Job: job, Bid: Sequence(t), Stage: Stage(t, job), Life: Life(t), Task: Task(t)}
}

func replicate(t *rapid.T, job protocol.JobID) protocol.Message {
	return &protocol.Replicate{Job: job, Root: CIDs(t, "root")}
}

func acknowledge(t *rapid.T, job protocol.JobID) protocol.Message {
	return &protocol.Acknowledge{Job: job, Order: Hash(t, "order")}
}

func compare(t *rapid.T, job protocol.JobID) protocol.Message {
	return &protocol.Compare{Job: job, Parts: list(t, 3, func() protocol.Part {
		p := protocol.Part{Kind: protocol.PartKind(rapid.Uint8Range(1, 4).Draw(t, "kind")), Give: rapid.Bool().Draw(t, "give"),
			Hashes: list(t, 3, func() protocol.ShortHash { return Hash(t, "part").Short() })}
		if p.Kind == protocol.PartHead || p.Kind == protocol.PartNode {
			p.Stage = Stage(t, job)
		}
		if p.Kind == protocol.PartNode {
			p.Level, p.Number = rapid.Uint8Range(0, protocol.MaxLevel).Draw(t, "level"), rapid.Uint64Range(0, 9).Draw(t, "number")
		}
		return p
	})}
}
