package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/compute-mesh/mesh/internal/vfs"
	"github.com/compute-mesh/mesh/market"
)

// The journal is what the machine must not forget: market.Entry after market.Entry in one file, of the form that frame.go
// gives. Append returns when its entries are durable. A crash in the middle of it leaves a torn tail, which nobody was told
// of: opening cuts it off. Damage with whole commits after it was not torn, but rotted: what was said there is gone, and the
// journal is not opened but to repair it.
type journal struct {
	fs      vfs.FS
	path    string
	file    vfs.File
	number  uint32 // of the last commit
	size    atomic.Int64
	base    atomic.Int64 // size after the last rewriting
	err     error        // the first failure: nothing is written after it
	buf     []byte
	commits atomic.Uint64
}

const (
	// compactAbove is the size from which the journal is rewritten without what is no longer needed, once it has doubled
	// since the last time: reading it takes about 0.1 s.
	compactAbove = 16 << 20
	// keptBuffer bounds the buffer that is kept between appends: a burst's is not.
	keptBuffer = 1 << 20
	// snapshotFrame bounds the commits of a rewritten journal, so that damage costs no more than one.
	snapshotFrame = 256 << 10
	// damagedEnd names a journal that was repaired, as it was before.
	damagedEnd = ".damaged"
)

// ErrJournalVersion: the journal was written by a newer version.
var ErrJournalVersion = errors.New("journal was written by a newer version")

// ErrJournalClosed: the journal has failed or been closed.
var ErrJournalClosed = errors.New("journal is closed")

// ErrJournalDamaged: something said in the journal is lost. The error is a *DamageError.
var ErrJournalDamaged = errors.New("journal is damaged")

// DamageError says what of a journal is lost.
type DamageError struct {
	Path   string
	Damage []damage
	Kept   int // entries that are whole
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("node: journal %s: damaged: %s; %d entries are whole. No crash does this: look after the disk. Another start of meshd with --repair "+
		"goes on without what is lost (other peers give back what they know of it) and keeps the damaged file as %s",
		e.Path, lossText(e.Damage), e.Kept, filepath.Base(e.Path)+damagedEnd)
}

// Is makes a DamageError an ErrJournalDamaged.
func (e *DamageError) Is(target error) bool { return target == ErrJournalDamaged }

// openJournal opens or makes the journal in dir and returns what it holds. One of an older version is written anew, once. With
// repair a damaged one is, too, without what is lost.
func openJournal(fsys vfs.FS, dir string, repair bool, log *slog.Logger) (*journal, []market.Entry, error) {
	j := &journal{fs: fsys, path: filepath.Join(dir, "log")}
	data, err := vfs.ReadFile(fsys, j.path)
	if errors.Is(err, fs.ErrNotExist) {
		return j, nil, j.create(nil)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("node: journal: %w", err)
	}
	found, err := readJournal(data)
	if err != nil {
		return nil, nil, fmt.Errorf("node: journal %s: %w", j.path, err)
	}
	if len(found.damage) > 0 {
		lost := &DamageError{j.path, found.damage, len(found.entries)}
		if !repair {
			return nil, nil, lost
		}
		log.Error("the journal is repaired; what was lost comes back from other peers, if they have it", "file", j.path, "lost", lossText(found.damage))
		return j, found.entries, j.repair(data, found.entries)
	}
	if found.end < int64(len(data)) {
		log.Warn("the journal ends in a commit that was not written whole, and of which nobody was told; it is cut off", "file", j.path,
			"offset", found.end, "bytes", int64(len(data))-found.end)
	}
	if found.version < journalVersion {
		log.Info("the journal is brought to this version's format", "file", j.path, "from", found.version, "to", journalVersion)
		return j, found.entries, j.create(found.entries)
	}
	j.number = found.number
	return j, found.entries, j.resume(found.end)
}

// repair keeps the damaged journal under another name and starts one of what is whole.
func (j *journal) repair(data []byte, entries []market.Entry) error {
	if err := vfs.Replace(j.fs, j.path+damagedEnd, data, 0o600); err != nil {
		return fmt.Errorf("node: journal: %w", err)
	}
	return j.create(entries)
}

// create starts a journal that holds entries, in the place of any other.
func (j *journal) create(entries []market.Entry) error {
	data := journalStart()
	number := uint32(0)
	for len(entries) > 0 {
		n, bytes := 1, len(entries[0].Data)
		for n < len(entries) && bytes+len(entries[n].Data) <= snapshotFrame {
			bytes += len(entries[n].Data)
			n++
		}
		var err error
		if data, err = appendFrame(data, number+1, entries[:n]); err != nil {
			return err
		}
		number++
		entries = entries[n:]
	}
	f, err := vfs.WriteNew(j.fs, j.path, data, 0o600)
	if err != nil {
		return fmt.Errorf("node: journal: %w", err)
	}
	if j.file != nil {
		err = j.file.Close()
	}
	j.file, j.number = f, number
	j.size.Store(int64(len(data)))
	j.base.Store(int64(len(data)))
	return err
}

// resume goes on with a journal whose whole commits end at end.
func (j *journal) resume(end int64) error {
	f, err := j.fs.OpenFile(j.path, os.O_WRONLY|os.O_APPEND, 0)
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

// Append returns when entries are durable. When the disk has no room (vfs.IsFull) nothing has happened, and it may be called
// again. After any other error nothing more can be appended: a flush that failed may have dropped what it was to write,
// and a second one would not say so.
func (j *journal) Append(entries []market.Entry) (err error) {
	if j.err != nil {
		return j.err
	}
	if j.buf, err = appendFrame(j.buf[:0], j.number+1, entries); err != nil {
		return err
	}
	_, err = j.file.Write(j.buf)
	if vfs.IsFull(err) && j.file.Truncate(j.size.Load()) == nil {
		return fmt.Errorf("node: journal %s: %w", j.path, err)
	}
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		j.err = fmt.Errorf("node: journal %s: %w", j.path, errors.Join(ErrJournalClosed, err))
		return j.err
	}
	j.number++
	j.size.Add(int64(len(j.buf)))
	j.commits.Add(1)
	if cap(j.buf) > keptBuffer {
		j.buf = nil
	}
	return nil
}

// grown tells whether it is time to Compact. Any goroutine may ask.
func (j *journal) grown() bool { return j.size.Load() >= max(compactAbove, 2*j.base.Load()) }

// Compact rewrites the journal: entries are all that is needed of it. When the disk has no room for both (vfs.IsFull) the old
// one stands, and is appended to.
func (j *journal) Compact(entries []market.Entry) error {
	if j.err != nil {
		return j.err
	}
	err := j.create(entries)
	if err != nil && !vfs.IsFull(err) {
		j.err = err
	}
	return err
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

// journalStart is what every journal begins with.
func journalStart() []byte {
	return binary.BigEndian.AppendUint32([]byte(journalMagic), journalVersion)
}
