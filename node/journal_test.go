package node

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/compute-mesh/mesh/market"
)

func entry(i int) market.Entry {
	return market.Entry{Kind: market.EntryRecord, Job: "job", Data: fmt.Appendf(nil, "entry number %d", i)}
}

func entriesTo(n int) (list []market.Entry) {
	for i := range n {
		list = append(list, entry(i))
	}
	return list
}

func sameEntries(a, b []market.Entry) bool {
	return slices.EqualFunc(a, b, func(x, y market.Entry) bool {
		return x.Kind == y.Kind && x.Job == y.Job && bytes.Equal(x.Data, y.Data)
	})
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// writeJournal makes a journal of n entries, one append each, and returns its directory.
func writeJournal(t *testing.T, n int) string {
	t.Helper()
	dir := t.TempDir()
	j, entries, err := openJournal(osFiles{}, dir, quiet())
	if err != nil || len(entries) != 0 {
		t.Fatalf("new journal: %d entries, %v", len(entries), err)
	}
	for i := range n {
		if err := j.Append([]market.Entry{entry(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func reopen(t *testing.T, dir string) (*journal, []market.Entry) {
	t.Helper()
	j, entries, err := openJournal(osFiles{}, dir, quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j, entries
}

func TestJournalGivesBackWhatWasAppended(t *testing.T) {
	dir := writeJournal(t, 5)
	j, got := reopen(t, dir)
	if !sameEntries(got, entriesTo(5)) {
		t.Fatalf("got %v", got)
	}
	if err := j.Append([]market.Entry{entry(5), entry(6)}); err != nil {
		t.Fatal(err)
	}
	if _, got = reopen(t, dir); !sameEntries(got, entriesTo(7)) {
		t.Fatalf("after a second start: %v", got)
	}
}

// A crash may leave any prefix of the file: what is whole is kept, and the journal goes on behind it.
func TestJournalTornTail(t *testing.T) {
	dir := writeJournal(t, 3)
	path := filepath.Join(dir, "log")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for size := 0; size <= len(whole); size++ {
		if err := os.WriteFile(path, whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		j, got, err := openJournal(osFiles{}, dir, quiet())
		if err != nil {
			t.Fatalf("cut at %d: %v", size, err)
		}
		if !sameEntries(got, entriesTo(len(got))) {
			t.Fatalf("cut at %d: %v", size, got)
		}
		if size == len(whole) && len(got) != 3 {
			t.Fatalf("whole journal: %d entries", len(got))
		}
		if err := j.Append([]market.Entry{entry(len(got))}); err != nil {
			t.Fatal(err)
		}
		_ = j.Close()
		j2, again, err := openJournal(osFiles{}, dir, quiet())
		if err != nil || !sameEntries(again, entriesTo(len(got)+1)) {
			t.Fatalf("cut at %d, appended: %v, %v", size, again, err)
		}
		_ = j2.Close()
	}
}

// A flipped bit costs at most the entry that it is in and, where the entry's length can't be believed, those after it;
// it never makes up an entry.
func TestJournalBitFlip(t *testing.T) {
	dir := writeJournal(t, 4)
	path := filepath.Join(dir, "log")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := entriesTo(4)
	for bit := journalHeader * 8; bit < len(whole)*8; bit++ {
		damaged := bytes.Clone(whole)
		damaged[bit/8] ^= 1 << (bit % 8)
		entries, _, lost := readEntries(damaged)
		for _, e := range entries {
			if !slices.ContainsFunc(want, func(w market.Entry) bool { return sameEntries([]market.Entry{w}, []market.Entry{e}) }) {
				t.Fatalf("bit %d: made up %q", bit, e.Data)
			}
		}
		inBody := false
		for at := journalHeader; at < len(whole); {
			n := int(binary.BigEndian.Uint32(whole[at:]))
			inBody = inBody || bit/8 >= at+4 && bit/8 < at+entryHeader+n
			at += entryHeader + n
		}
		if inBody && len(entries) != 3 {
			t.Fatalf("bit %d of a body: %d entries left, lost %v", bit, len(entries), lost)
		}
	}
}

func TestJournalRefusesANewerVersionAndForeignFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	newer := binary.BigEndian.AppendUint32([]byte(journalMagic), journalVersion+1)
	if err := os.WriteFile(path, newer, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openJournal(osFiles{}, dir, quiet()); !errors.Is(err, ErrJournalVersion) {
		t.Fatalf("newer version: %v", err)
	}
	if err := os.WriteFile(path, []byte("a text that somebody put here"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openJournal(osFiles{}, dir, quiet()); err == nil {
		t.Fatal("a foreign file was taken for a journal")
	}
}

func TestJournalCompact(t *testing.T) {
	dir := writeJournal(t, 2)
	j, _ := reopen(t, dir)
	if err := j.Compact(nil); err != nil { // small: left alone
		t.Fatal(err)
	}
	big := market.Entry{Kind: market.EntryRecord, Job: "job", Data: make([]byte, maxEntry/2)}
	for j.size.Load() < compactAbove {
		if err := j.Append([]market.Entry{big}); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Compact([]market.Entry{entry(0)}); err != nil {
		t.Fatal(err)
	}
	if err := j.Append([]market.Entry{entry(1)}); err != nil {
		t.Fatal(err)
	}
	if _, got := reopen(t, dir); !sameEntries(got, entriesTo(2)) {
		t.Fatalf("after compaction: %d entries", len(got))
	}
}

// faultyFiles fails one operation, counted from 0, and every one after it, as a dying disk does.
type faultyFiles struct {
	osFiles
	count, failAt int
}

var errDisk = errors.New("input/output error")

func (f *faultyFiles) next() error {
	f.count++
	if f.count > f.failAt {
		return errDisk
	}
	return nil
}

func (f *faultyFiles) ReadFile(path string) ([]byte, error) {
	if err := f.next(); err != nil {
		return nil, err
	}
	return f.osFiles.ReadFile(path)
}

func (f *faultyFiles) Create(path string) (logFile, error) {
	if err := f.next(); err != nil {
		return nil, err
	}
	file, err := f.osFiles.Create(path)
	return &faultyFile{file, f}, err
}

func (f *faultyFiles) OpenAppend(path string) (logFile, error) {
	if err := f.next(); err != nil {
		return nil, err
	}
	file, err := f.osFiles.OpenAppend(path)
	return &faultyFile{file, f}, err
}

func (f *faultyFiles) Rename(from, to string) error {
	if err := f.next(); err != nil {
		return err
	}
	return f.osFiles.Rename(from, to)
}

type faultyFile struct {
	logFile
	f *faultyFiles
}

// Write writes half of p when it fails, as a full disk does.
func (f *faultyFile) Write(p []byte) (int, error) {
	if err := f.f.next(); err != nil {
		n, _ := f.logFile.Write(p[:len(p)/2])
		return n, err
	}
	return f.logFile.Write(p)
}

func (f *faultyFile) Sync() error {
	if err := f.f.next(); err != nil {
		return err
	}
	return f.logFile.Sync()
}

func (f *faultyFile) Truncate(n int64) error {
	if err := f.f.next(); err != nil {
		return err
	}
	return f.logFile.Truncate(n)
}

// Whatever operation fails: what Append returned nil for is there at the next start, in order, and after an error
// nothing more is accepted.
func TestJournalFaultAtEveryOperation(t *testing.T) {
	const appends = 4
	for failAt := 0; ; failAt++ {
		dir := t.TempDir()
		f := &faultyFiles{failAt: failAt}
		accepted := 0
		j, _, err := openJournal(f, dir, quiet())
		if err == nil {
			for i := range appends {
				if err = j.Append([]market.Entry{entry(i)}); err != nil {
					break
				}
				accepted++
			}
			if err != nil {
				f.failAt = 1 << 30 // the disk is back: the journal must not be
				if j.Append([]market.Entry{entry(99)}) == nil {
					t.Fatalf("operation %d: appended after a failure", failAt)
				}
			}
			_ = j.Close()
		}
		_, got := reopen(t, dir)
		if len(got) < accepted || !sameEntries(got, entriesTo(len(got))) {
			t.Fatalf("operation %d: accepted %d, found %v", failAt, accepted, got)
		}
		if err == nil {
			if accepted != appends {
				t.Fatalf("accepted %d", accepted)
			}
			return // no operation was left to fail
		}
	}
}

func FuzzReadEntries(f *testing.F) {
	data := binary.BigEndian.AppendUint32([]byte(journalMagic), journalVersion)
	for i := range 3 {
		data, _ = appendEntry(data, entry(i))
	}
	f.Add(data)
	f.Add(data[:len(data)-3])
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < journalHeader {
			return
		}
		entries, end, _ := readEntries(data)
		if end > int64(len(data)) {
			t.Fatalf("end %d of %d", end, len(data))
		}
		for _, e := range entries {
			if _, err := appendEntry(nil, e); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestHomeIsForOneProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "home")
	h, err := openHome(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openHome(dir); !errors.Is(err, ErrHomeInUse) || !bytes.Contains([]byte(err.Error()), fmt.Append(nil, os.Getpid())) {
		t.Fatalf("second meshd: %v", err)
	}
	first := *h
	if err := h.close(); err != nil {
		t.Fatal(err)
	}
	if h, err = openHome(dir); err != nil {
		t.Fatal(err)
	}
	defer h.close()
	if h.peer != first.peer || h.ownerID != first.ownerID {
		t.Error("keys changed from one start to the next")
	}
	if h.incarnation <= first.incarnation {
		t.Errorf("incarnation %d after %d", h.incarnation, first.incarnation)
	}
	for _, name := range []string{fileOwner, fileIdentity} {
		info, err := os.Stat(h.path(name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
	}
}

func TestHomeRefusesANewerVersion(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, fileVersion), []byte("99\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openHome(dir); !errors.Is(err, ErrHomeVersion) {
		t.Fatalf("newer home: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, fileOwner)); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a key was made in a home of a newer version")
	}
}
