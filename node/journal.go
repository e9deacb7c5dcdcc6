package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync/atomic"

	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
)

// The journal is what the machine must not forget: market.Entry after market.Entry in one file.
//
//	file   = magic (8 bytes) version (uint32, big-endian) entry*
//	entry  = length (uint32) checksum (uint32) body      length and checksum are of the body
//	body   = kind (1 byte) job length (1 byte) job data
//
// The checksum is CRC-32C. Append returns when its entries are durable. A crash in the middle of it leaves a torn tail,
// which nobody was told of: reading cuts it off. A damaged entry with whole ones after it was not torn, but rotted: it
// is skipped and reported, and what follows is kept, since entries do not depend on their neighbours.
type journal struct {
	files   files
	path    string
	file    logFile
	size    atomic.Int64
	err     error // the first failure: nothing is written after it
	buf     []byte
	commits atomic.Uint64
}

const (
	journalMagic   = "meshlog\n"
	journalVersion = 1
	journalHeader  = len(journalMagic) + 4
	entryHeader    = 8
	// maxEntry bounds an entry: a manifest (at most 256 KiB) or a record (protocol.MaxRecord), with room. A length above
	// it is damage.
	maxEntry = 1 << 20
	// compactAbove is the size from which a start rewrites the journal without what is no longer needed: reading it
	// takes about 0.1 s.
	compactAbove = 16 << 20
)

// ErrJournalVersion: the journal was written by a newer version.
var ErrJournalVersion = errors.New("journal was written by a newer version")

// ErrJournalClosed: the journal has failed or been closed.
var ErrJournalClosed = errors.New("journal is closed")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openJournal opens or makes the journal in dir and returns what it holds.
func openJournal(f files, dir string, log *slog.Logger) (*journal, []market.Entry, error) {
	j := &journal{files: f, path: filepath.Join(dir, "log")}
	data, err := f.ReadFile(j.path)
	if errors.Is(err, fs.ErrNotExist) {
		return j, nil, j.create(nil)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("node: journal: %w", err)
	}
	if len(data) < journalHeader { // a crash while it was made: nothing was in it
		return j, nil, j.create(nil)
	}
	if string(data[:len(journalMagic)]) != journalMagic {
		return nil, nil, fmt.Errorf("node: journal %s: not a journal of meshd", j.path)
	}
	if v := binary.BigEndian.Uint32(data[len(journalMagic):]); v > journalVersion {
		return nil, nil, fmt.Errorf("node: journal %s: %w: version %d, this meshd knows up to %d; run a newer meshd", j.path, ErrJournalVersion, v, journalVersion)
	}
	entries, end, lost := readEntries(data)
	for _, at := range lost {
		log.Error("a journal entry is damaged and was skipped; what it said comes back from other peers, if they have it", "file", j.path, "offset", at)
	}
	if end < int64(len(data)) {
		log.Warn("the journal ends in an entry that was not written whole; it is cut off", "file", j.path, "offset", end, "bytes", int64(len(data))-end)
	}
	return j, entries, j.resume(end)
}

// create starts a journal that holds entries, in the place of any other.
func (j *journal) create(entries []market.Entry) error {
	temp := j.path + ".new"
	f, err := j.files.Create(temp)
	if err != nil {
		return fmt.Errorf("node: journal: %w", err)
	}
	data := binary.BigEndian.AppendUint32([]byte(journalMagic), journalVersion)
	for _, e := range entries {
		if data, err = appendEntry(data, e); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = j.files.Rename(temp, j.path)
	}
	if err != nil {
		return fmt.Errorf("node: journal: %w", errors.Join(err, f.Close()))
	}
	if j.file != nil {
		err = j.file.Close()
	}
	j.file = f
	j.size.Store(int64(len(data)))
	return err
}

// resume goes on with a journal whose whole entries end at end.
func (j *journal) resume(end int64) error {
	f, err := j.files.OpenAppend(j.path)
	if err != nil {
		return fmt.Errorf("node: journal: %w", err)
	}
	err = f.Truncate(end)
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return fmt.Errorf("node: journal: %w", errors.Join(err, f.Close()))
	}
	j.file = f
	j.size.Store(end)
	return nil
}

// Append returns when entries are durable. After an error nothing more can be appended: a flush that failed may have
// dropped what it was to write, and a second one would not say so.
func (j *journal) Append(entries []market.Entry) (err error) {
	if j.err != nil {
		return j.err
	}
	j.buf = j.buf[:0]
	for _, e := range entries {
		if j.buf, err = appendEntry(j.buf, e); err != nil {
			return err
		}
	}
	n, err := j.file.Write(j.buf)
	j.size.Add(int64(n))
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		j.err = fmt.Errorf("node: journal %s: %w", j.path, err)
		return j.err
	}
	j.commits.Add(1)
	if cap(j.buf) > maxEntry { // a burst's buffer is not kept
		j.buf = nil
	}
	return nil
}

// Compact rewrites a journal that has grown large, with what is still needed of entries.
func (j *journal) Compact(entries []market.Entry) error {
	if j.size.Load() < compactAbove {
		return nil
	}
	return j.create(entries)
}

// Close ends the journal. What Append returned for is durable already.
func (j *journal) Close() error {
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	j.file = nil
	if j.err == nil {
		j.err = fmt.Errorf("node: journal %s: %w", j.path, ErrJournalClosed)
	}
	return err
}

// appendEntry adds an entry's bytes to b.
func appendEntry(b []byte, e market.Entry) ([]byte, error) {
	n := 2 + len(e.Job) + len(e.Data)
	if len(e.Job) > 255 || n > maxEntry {
		return b, fmt.Errorf("node: journal: entry of kind %d with %d bytes: want at most %d", e.Kind, n, maxEntry)
	}
	start := len(b)
	b = append(b, make([]byte, entryHeader)...)
	b = append(b, byte(e.Kind), byte(len(e.Job)))
	b = append(b, e.Job...)
	b = append(b, e.Data...)
	binary.BigEndian.PutUint32(b[start:], uint32(n))
	binary.BigEndian.PutUint32(b[start+4:], crc32.Checksum(b[start+entryHeader:], castagnoli))
	return b, nil
}

// readEntries returns the whole entries of a journal's bytes, where they end, and the offsets of damaged ones between
// them. The entries' data are parts of data.
func readEntries(data []byte) (entries []market.Entry, end int64, damaged []int64) {
	end = int64(journalHeader)
	var suspect []int64
	for at := end; ; {
		e, next, err := readEntry(data, at)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return entries, end, damaged
		}
		if err != nil {
			suspect = append(suspect, at)
		} else {
			entries = append(entries, e)
			damaged, suspect = append(damaged, suspect...), nil
			end = next
		}
		at = next
	}
}

var errDamaged = errors.New("damaged")

// readEntry reads the entry at an offset: io.ErrUnexpectedEOF where no whole one is, errDamaged where its checksum does
// not hold. The bytes after a damaged one begin at next, if its length can be believed.
func readEntry(data []byte, at int64) (e market.Entry, next int64, err error) {
	rest := data[at:]
	if len(rest) < entryHeader {
		return e, at, io.ErrUnexpectedEOF
	}
	n := binary.BigEndian.Uint32(rest)
	if n > maxEntry || n < 2 || int(n) > len(rest)-entryHeader {
		return e, at, io.ErrUnexpectedEOF
	}
	next = at + entryHeader + int64(n)
	body := rest[entryHeader : entryHeader+n : entryHeader+n]
	jobLen := int(body[1])
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(rest[4:]) || 2+jobLen > len(body) {
		return e, next, errDamaged
	}
	e = market.Entry{Kind: market.EntryKind(body[0]), Job: protocol.JobID(body[2 : 2+jobLen]), Data: body[2+jobLen:]}
	return e, next, nil
}
