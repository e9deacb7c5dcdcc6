package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
)

// A journal is
//
//	file   = magic (8 bytes) version (uint32) frame*
//	frame  = length (uint32) number (uint32) checksum (uint32) header checksum (uint32) body
//	body   = entry*
//	entry  = length (uint32) kind (1 byte) job length (1 byte) job data     length is of what follows it
//
// Integers are big-endian, checksums CRC-32C: of the body, and of the header's 12 bytes before it. A frame is a commit, whose
// number is one more than that of the frame before; the first is 1. The commit after it was begun when it was durable, so a
// frame that is not whole is the torn end of the file where no whole one comes after it, and damage where one does.
//
// Version 1 had a length and a checksum for each entry and no commits: there, a torn commit whose sectors were written out of
// order looks like damage.
//
//	file   = magic version entry*
//	entry  = length (uint32) checksum (uint32) kind (1 byte) job length (1 byte) job data     both are of what follows them
const (
	journalMagic   = "meshlog\n"
	journalVersion = 2
	journalHeader  = len(journalMagic) + 4
	frameHeader    = 16
	// maxEntry bounds an entry: a manifest (at most 256 KiB) or a record (protocol.MaxRecord), with room.
	maxEntry = 1 << 20
	// maxFrame bounds a commit: what the driver lets wait for one (batchBytes), and the effects of one burst beyond it.
	maxFrame = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errDamaged = errors.New("not whole")

// damage is a part of a journal that can't be read though it was written.
type damage struct {
	offset, bytes int64
	commits       uint32 // lost in it; 0: not known
}

// lossText names what is lost.
func lossText(list []damage) string {
	var parts []string
	for i, d := range list {
		if i == 4 {
			parts = append(parts, fmt.Sprintf("and %d more places", len(list)-i))
			break
		}
		text := fmt.Sprintf("%d bytes at offset %d", d.bytes, d.offset)
		if d.commits > 0 {
			text = fmt.Sprintf("%s (%s)", count(uint64(d.commits), "commit"), text)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ") + " lost"
}

// journalContent is what is found in a journal's bytes. The entries' data are parts of those.
type journalContent struct {
	version uint32
	entries []market.Entry
	end     int64  // of the last whole commit
	number  uint32 // of it
	damage  []damage
}

// readJournal reads a journal of any version that this program knows.
func readJournal(data []byte) (found journalContent, err error) {
	if len(data) < journalHeader || string(data[:len(journalMagic)]) != journalMagic {
		return found, errors.New("not a journal of meshd")
	}
	found = journalContent{version: binary.BigEndian.Uint32(data[len(journalMagic):]), end: int64(journalHeader)}
	switch {
	case found.version > journalVersion:
		return found, fmt.Errorf("%w: version %d, this meshd knows up to %d; run a newer meshd", ErrJournalVersion, found.version, journalVersion)
	case found.version == 1:
		found.readV1(data)
	case found.version == journalVersion:
		found.read(data)
	default:
		return found, fmt.Errorf("version %d has never been written", found.version)
	}
	return found, nil
}

// read reads frames up to the last whole one.
func (c *journalContent) read(data []byte) {
	for {
		at := c.end
		entries, number, next, err := readFrame(data, at)
		if err != nil || number <= c.number {
			if at = nextFrame(data, at+1, c.number); at < 0 {
				return
			}
			entries, number, next, _ = readFrame(data, at)
		}
		if lost := number - c.number - 1; lost > 0 || at > c.end {
			c.damage = append(c.damage, damage{c.end, at - c.end, lost})
		}
		c.entries = append(c.entries, entries...)
		c.end, c.number = next, number
	}
}

// nextFrame finds the next whole frame with a number above one, from an offset on; -1: there is none.
func nextFrame(data []byte, from int64, above uint32) int64 {
	for at := from; at+frameHeader <= int64(len(data)); at++ {
		if _, number, _, err := readFrame(data, at); err == nil && number > above {
			return at
		}
	}
	return -1
}

// readFrame reads the frame at an offset.
func readFrame(data []byte, at int64) (entries []market.Entry, number uint32, next int64, err error) {
	rest := data[at:]
	if len(rest) < frameHeader || crc32.Checksum(rest[:12], castagnoli) != binary.BigEndian.Uint32(rest[12:]) {
		return nil, 0, at, errDamaged
	}
	n, number := int64(binary.BigEndian.Uint32(rest)), binary.BigEndian.Uint32(rest[4:])
	rest = rest[frameHeader:]
	if n > int64(len(rest)) || crc32.Checksum(rest[:n], castagnoli) != binary.BigEndian.Uint32(data[at+8:]) {
		return nil, 0, at, errDamaged
	}
	for body := rest[:n:n]; len(body) > 0; {
		if len(body) < 4 {
			return nil, 0, at, errDamaged
		}
		size := int64(binary.BigEndian.Uint32(body))
		if size > int64(len(body)-4) {
			return nil, 0, at, errDamaged
		}
		e, ok := readEntry(body[4 : 4+size : 4+size])
		if !ok {
			return nil, 0, at, errDamaged
		}
		entries = append(entries, e)
		body = body[4+size:]
	}
	return entries, number, at + frameHeader + n, nil
}

// readEntry reads kind, job and data.
func readEntry(b []byte) (e market.Entry, ok bool) {
	if len(b) < 2 || len(b) < 2+int(b[1]) {
		return e, false
	}
	job := b[2 : 2+int(b[1])]
	return market.Entry{Kind: market.EntryKind(b[0]), Job: protocol.JobID(job), Data: b[2+len(job):]}, true
}

// appendFrame adds a commit of entries to b.
func appendFrame(b []byte, number uint32, entries []market.Entry) ([]byte, error) {
	start := len(b)
	b = append(b, make([]byte, frameHeader)...)
	for _, e := range entries {
		n := 2 + len(e.Job) + len(e.Data)
		if len(e.Job) > 255 || n > maxEntry {
			return b[:start], fmt.Errorf("node: journal: entry of kind %d with %d bytes: want at most %d", e.Kind, n, maxEntry)
		}
		b = binary.BigEndian.AppendUint32(b, uint32(n))
		b = append(b, byte(e.Kind), byte(len(e.Job)))
		b = append(b, e.Job...)
		b = append(b, e.Data...)
	}
	head, body := b[start:start+frameHeader], b[start+frameHeader:]
	if len(body) > maxFrame {
		return b[:start], fmt.Errorf("node: journal: commit of %d bytes: want at most %d", len(body), maxFrame)
	}
	binary.BigEndian.PutUint32(head, uint32(len(body)))
	binary.BigEndian.PutUint32(head[4:], number)
	binary.BigEndian.PutUint32(head[8:], crc32.Checksum(body, castagnoli))
	binary.BigEndian.PutUint32(head[12:], crc32.Checksum(head[:12], castagnoli))
	return b, nil
}

// readV1 reads the entries of version 1. What is not whole is damage when a whole one comes after it.
func (c *journalContent) readV1(data []byte) {
	for at := c.end; at+8 <= int64(len(data)); {
		n := int64(binary.BigEndian.Uint32(data[at:]))
		if n > maxEntry || n > int64(len(data))-at-8 {
			at++
			continue
		}
		body := data[at+8 : at+8+n : at+8+n]
		e, ok := readEntry(body)
		if !ok || crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(data[at+4:]) {
			at++
			continue
		}
		if at > c.end {
			c.damage = append(c.damage, damage{offset: c.end, bytes: at - c.end})
		}
		c.entries = append(c.entries, e)
		at += 8 + n
		c.end = at
	}
}
