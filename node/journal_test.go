package node

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/compute-mesh/mesh/internal/vfs"
	"github.com/compute-mesh/mesh/internal/vfs/vfstest"
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
	j, entries, err := openJournal(vfs.OS{}, dir, false, quiet())
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
	j, entries, err := openJournal(vfs.OS{}, dir, false, quiet())
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
	for size := journalHeader; size <= len(whole); size++ { // it has its name only when it has its header
		if err := os.WriteFile(path, whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		j, got, err := openJournal(vfs.OS{}, dir, false, quiet())
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
		j2, again, err := openJournal(vfs.OS{}, dir, false, quiet())
		if err != nil || !sameEntries(again, entriesTo(len(got)+1)) {
			t.Fatalf("cut at %d, appended: %v, %v", size, again, err)
		}
		_ = j2.Close()
	}
}

// A flipped bit is found: in the last commit it can't be told from a torn end, in any other it is damage, which costs that commit
// and no other. It never makes up an entry.
func TestJournalBitFlip(t *testing.T) {
	dir := writeJournal(t, 4)
	path := filepath.Join(dir, "log")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := entriesTo(4)
	size := (len(whole) - journalHeader) / 4 // all commits are of one length
	for bit := journalHeader * 8; bit < len(whole)*8; bit++ {
		damaged := bytes.Clone(whole)
		damaged[bit/8] ^= 1 << (bit % 8)
		found, err := readJournal(damaged)
		if err != nil {
			t.Fatal(err)
		}
		hit := (bit/8 - journalHeader) / size
		left := slices.Delete(slices.Clone(want), hit, hit+1)
		if !sameEntries(found.entries, left) {
			t.Fatalf("bit %d of commit %d: %v", bit, hit, found.entries)
		}
		at := int64(journalHeader + hit*size)
		switch {
		case hit == 3 && (len(found.damage) != 0 || found.end != at):
			t.Fatalf("bit %d of the last commit: end %d, damage %v", bit, found.end, found.damage)
		case hit < 3 && (len(found.damage) != 1 || found.damage[0] != damage{at, int64(size), 1}):
			t.Fatalf("bit %d of commit %d: damage %v", bit, hit, found.damage)
		}
	}
}

// A commit that was lost as a whole, its place taken by the next, is missed.
func TestJournalMissesACommit(t *testing.T) {
	whole := journalStart()
	for i := range 3 {
		if i != 1 {
			whole, _ = appendFrame(whole, uint32(i+1), []market.Entry{entry(i)})
		}
	}
	found, err := readJournal(whole)
	if err != nil || len(found.entries) != 2 || len(found.damage) != 1 || found.damage[0].commits != 1 {
		t.Fatalf("%+v, %v", found, err)
	}
}

// A damaged journal is not opened, with the place and what to do; to repair it keeps what is whole, and the damaged file.
func TestJournalDamageIsRefusedAndRepaired(t *testing.T) {
	dir := writeJournal(t, 5)
	path := filepath.Join(dir, "log")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before[len(before)/2] ^= 4
	if err := os.WriteFile(path, before, 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err = openJournal(vfs.OS{}, dir, false, quiet())
	var lost *DamageError
	if !errors.As(err, &lost) || lost.Kept != 4 {
		t.Fatalf("damaged journal: %v", err)
	}
	for _, text := range []string{path, "1 commit", "offset", "--repair", "4 entries are whole"} {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q lacks %q", err, text)
		}
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Error("refusing it has changed it")
	}
	j, got, err := openJournal(vfs.OS{}, dir, true, quiet())
	if err != nil || len(got) != 4 {
		t.Fatalf("repair: %d entries, %v", len(got), err)
	}
	if err := errors.Join(j.Append([]market.Entry{entry(9)}), j.Close()); err != nil {
		t.Fatal(err)
	}
	if kept, err := os.ReadFile(path + damagedEnd); err != nil || !bytes.Equal(before, kept) {
		t.Error("the damaged journal was not kept")
	}
	if _, got = reopen(t, dir); len(got) != 5 {
		t.Fatalf("after the repair: %d entries", len(got))
	}
}

// v1 is a journal of version 1.
func v1(entries ...market.Entry) []byte {
	data := binary.BigEndian.AppendUint32([]byte(journalMagic), 1)
	for _, e := range entries {
		body := append(append([]byte{byte(e.Kind), byte(len(e.Job))}, e.Job...), e.Data...)
		data = binary.BigEndian.AppendUint32(data, uint32(len(body)))
		data = binary.BigEndian.AppendUint32(data, crc32.Checksum(body, castagnoli))
		data = append(data, body...)
	}
	return data
}

// An older journal is written anew once, whole or not at all, wherever the power goes; damage in it is found as in a new one.
func TestJournalOfVersion1IsUpgradedOnce(t *testing.T) {
	const dir, path = "/journal", "/journal/log"
	old := v1(entriesTo(4)...)
	put := func(data []byte) *vfstest.Disk {
		d := vfstest.New()
		err := errors.Join(d.MkdirAll(dir, 0o700), vfs.Sync(d, "/"), vfs.Replace(d, path, data, 0o600))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for k, over := 0, false; !over; k++ {
		d := put(append(bytes.Clone(old), 0, 0, 1)) // with a torn end
		f := &vfstest.Faults{FS: d}
		f.FailAt(k, vfstest.ErrOff, true)
		_, _, err := openJournal(f, dir, false, quiet())
		over = f.Ops() <= k
		d = d.Crash(uint64(k))
		data, readErr := vfs.ReadFile(d, path)
		if readErr != nil {
			t.Fatal(readErr)
		}
		found, readErr := readJournal(data)
		if readErr != nil || !sameEntries(found.entries, entriesTo(4)) || err == nil && found.version != journalVersion {
			t.Fatalf("operation %d (%v): version %d, %v, %v", k, err, found.version, found.entries, readErr)
		}
		if _, got, err := openJournal(d, dir, false, quiet()); err != nil || !sameEntries(got, entriesTo(4)) {
			t.Fatalf("operation %d, started again: %v, %v", k, got, err)
		}
	}
	old[journalHeader+20] ^= 1
	if _, _, err := openJournal(put(old), dir, false, quiet()); !errors.Is(err, ErrJournalDamaged) {
		t.Fatalf("damaged version 1: %v", err)
	}
}

func TestJournalRefusesANewerVersionAndForeignFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	newer := binary.BigEndian.AppendUint32([]byte(journalMagic), journalVersion+1)
	if err := os.WriteFile(path, newer, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openJournal(vfs.OS{}, dir, false, quiet()); !errors.Is(err, ErrJournalVersion) {
		t.Fatalf("newer version: %v", err)
	}
	if err := os.WriteFile(path, []byte("a text that somebody put here"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openJournal(vfs.OS{}, dir, false, quiet()); err == nil {
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

// Whatever operation fails: what Append returned nil for is there at the next start, in order, also when the power goes then.
// A full disk is no reason to stop; after any other failure nothing more is accepted, though the disk works again.
func TestJournalFaultAtEveryOperation(t *testing.T) {
	const appends = 4
	for _, cause := range []error{syscall.ENOSPC, syscall.EIO} {
		vfstest.Each(t, cause, false, func(t *testing.T, k int, d *vfstest.Disk, f *vfstest.Faults) {
			var failed vfstest.Op
			f.Hook(func(n int, op vfstest.Op, path string) error {
				if n == k {
					failed = op
					return fmt.Errorf("%s %s: %w", op, path, cause)
				}
				return nil
			})
			j, _, err := openJournal(f, "/", false, quiet())
			accepted, started := 0, err == nil
			for started && err == nil && accepted < appends {
				if err = j.Append([]market.Entry{entry(accepted)}); err == nil {
					accepted++
				}
			}
			if err != nil && !errors.Is(err, cause) {
				t.Fatalf("operation %d: %v", k, err)
			}
			if started && err != nil {
				again := j.Append([]market.Entry{entry(accepted)})
				if goesOn := cause == syscall.ENOSPC && failed == vfstest.OpWrite; goesOn != (again == nil) {
					t.Fatalf("operation %d: a commit after %v: %v", k, err, again)
				} else if goesOn {
					accepted++
				}
			}
			_, got, err := openJournal(d.Crash(uint64(k)), "/", false, quiet())
			if err != nil || len(got) < accepted || !sameEntries(got, entriesTo(len(got))) {
				t.Fatalf("operation %d: accepted %d, found %v, %v", k, accepted, got, err)
			}
		})
	}
}

// A disk that is full in the middle of a commit has forgotten nothing, and takes the same commit when it has room.
func TestJournalOnAFullDisk(t *testing.T) {
	d := vfstest.New()
	j, _, err := openJournal(d, "/", false, quiet())
	if err != nil {
		t.Fatal(err)
	}
	big := market.Entry{Kind: market.EntryRecord, Job: "job", Data: make([]byte, 20_000)}
	if err := j.Append([]market.Entry{entry(0)}); err != nil {
		t.Fatal(err)
	}
	d.SetSize(d.Used() + 8<<10)
	for range 3 {
		if err := j.Append([]market.Entry{big}); !vfs.IsFull(err) {
			t.Fatalf("append to a full disk: %v", err)
		}
		if err := j.Compact([]market.Entry{entry(0), big}); !vfs.IsFull(err) {
			t.Fatalf("rewriting on a full disk: %v", err)
		}
	}
	if err := j.Append([]market.Entry{entry(1)}); err != nil { // small enough
		t.Fatal(err)
	}
	d.SetSize(0)
	if err := j.Append([]market.Entry{big}); err != nil {
		t.Fatal(err)
	}
	if _, got, err := openJournal(d.Crash(1), "/", false, quiet()); err != nil || !sameEntries(got, []market.Entry{entry(0), entry(1), big}) {
		t.Fatalf("%d entries, %v", len(got), err)
	}
}

// The power goes at every operation of appends and rewritings: the journal opens, with what was accepted, and nothing torn is
// taken for damage.
func TestJournalPowerLoss(t *testing.T) {
	for seed := range uint64(20) {
		for k, over := 0, false; !over; k++ {
			d := vfstest.New()
			f := &vfstest.Faults{FS: d}
			f.FailAt(k, vfstest.ErrOff, true)
			var accepted []market.Entry
			last := []market.Entry{}
			j, _, err := openJournal(f, "/", false, quiet())
			for i := 0; err == nil && i < 6; i++ {
				if i == 3 {
					if err = j.Compact(accepted[1:]); err == nil {
						accepted = accepted[1:]
					} else {
						last = accepted[1:]
					}
					continue
				}
				e := market.Entry{Kind: market.EntryRecord, Job: "job", Data: bytes.Repeat([]byte{byte(i)}, 3000)}
				if err = j.Append([]market.Entry{e, entry(i)}); err == nil {
					accepted = append(accepted, e, entry(i))
				} else {
					last = append(slices.Clone(accepted), e, entry(i))
				}
			}
			over = f.Ops() <= k
			_, got, err := openJournal(d.Crash(seed), "/", false, quiet())
			if err != nil || !sameEntries(got, accepted) && !sameEntries(got, last) {
				t.Fatalf("seed %d, operation %d: accepted %d, found %d, %v", seed, k, len(accepted), len(got), err)
			}
		}
	}
}

func FuzzReadJournal(f *testing.F) {
	data := journalStart()
	for i := range 3 {
		data, _ = appendFrame(data, uint32(i+1), []market.Entry{entry(i)})
	}
	f.Add(data)
	f.Add(data[:len(data)-3])
	f.Add(v1(entriesTo(2)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		found, err := readJournal(data)
		if err != nil {
			return
		}
		if found.end > int64(len(data)) {
			t.Fatalf("end %d of %d", found.end, len(data))
		}
		for _, e := range found.entries {
			if _, err := appendFrame(nil, 1, []market.Entry{e}); err != nil && len(e.Data) < maxEntry/2 {
				t.Fatal(err)
			}
		}
	})
}

// Whichever operation of a first start fails, or the power goes at it: a second start succeeds, with the keys of the first if that
// gave any out, and a later incarnation.
func TestHomeFirstStartFaults(t *testing.T) {
	for _, cause := range []error{syscall.ENOSPC, vfstest.ErrOff} {
		vfstest.Each(t, cause, cause == vfstest.ErrOff, func(t *testing.T, k int, d *vfstest.Disk, f *vfstest.Faults) {
			first, err := openHome(f, "/user/mesh")
			started := err == nil
			if started {
				_, err = first.quota()
			}
			if err != nil && !errors.Is(err, cause) {
				t.Fatalf("operation %d: %v", k, err)
			}
			if started {
				_ = first.close()
			}
			f.Hook(nil)
			if cause == vfstest.ErrOff {
				d = d.Crash(uint64(k))
			}
			second, err := openHome(d, "/user/mesh")
			if err != nil {
				t.Fatalf("operation %d: started again: %v", k, err)
			}
			if started && (first.peer != second.peer || first.ownerID != second.ownerID || first.incarnation >= second.incarnation) {
				t.Fatalf("operation %d: the second start is another peer, or not later", k)
			}
		})
	}
}

// A home of an older version is brought to this one, its version last.
func TestHomeOfVersion1IsUpgraded(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(fileVersion, []byte("1\n"))
	write("journal/log", v1(market.Entry{Kind: market.EntryFinal, Job: "not a job"})) // which is read, and left aside
	h, err := openHome(vfs.OS{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	version := func() string { text, _ := os.ReadFile(filepath.Join(dir, fileVersion)); return string(text) }
	if version() != "1\n" {
		t.Error("the version was raised before the home was of it")
	}
	j, entries, err := openJournal(h.fs, h.path(dirJournal), false, quiet())
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v, %v", entries, err)
	}
	if err := errors.Join(h.upgraded(), j.Close(), h.close()); err != nil || version() != fmt.Sprintln(homeVersion) {
		t.Errorf("version %q, %v", version(), err)
	}
}

func TestHomeIsForOneProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "home")
	h, err := openHome(vfs.OS{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openHome(vfs.OS{}, dir); !errors.Is(err, ErrHomeInUse) || !bytes.Contains([]byte(err.Error()), fmt.Append(nil, os.Getpid())) {
		t.Fatalf("second meshd: %v", err)
	}
	first := *h
	if err := h.close(); err != nil {
		t.Fatal(err)
	}
	if h, err = openHome(vfs.OS{}, dir); err != nil {
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
	if _, err := openHome(vfs.OS{}, dir); !errors.Is(err, ErrHomeVersion) {
		t.Fatalf("newer home: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, fileOwner)); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a key was made in a home of a newer version")
	}
}
