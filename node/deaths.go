package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"os"
	"sync"

	"github.com/compute-mesh/mesh/market"
	"github.com/compute-mesh/mesh/protocol"
)

// deaths is the file that says which tasks run now, so that the next start knows which ran when this meshd died: one of
// them may be why. It has a fixed record a slot, written when a task begins and cleared when it ends:
//
//	record = checksum (uint32) incarnation (uint64) flags (1 byte: 1 alone) stage (uint32) task (uint64)
//	         job length (1 byte) job, big-endian, filled up with zeros to deathRecord; all zeros: the slot is free
//
// The checksum is CRC-32C of what follows it. Nothing is synced: the death of a process loses no writes, and what a power
// cut loses costs a task that it next runs beside others.
type deaths struct {
	incarnation uint64
	log         *slog.Logger

	mu   sync.Mutex
	file *os.File
	old  map[int]bool // records of earlier starts
}

// deathRecord is the size of a record: a job's ID is 36 bytes.
const deathRecord = 128

// maxDeaths bounds the records that are read: a slot each.
const maxDeaths = market.MaxSlots

// openDeaths opens or makes the file and returns the tasks that were running when an earlier meshd died.
func openDeaths(path string, incarnation uint64, log *slog.Logger) (*deaths, []market.DiedTask, error) {
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("node: running tasks: %w", err)
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("node: running tasks: %w", err)
	}
	d := &deaths{incarnation: incarnation, log: log, file: file, old: make(map[int]bool)}
	var list []market.DiedTask
	for i := 0; (i+1)*deathRecord <= len(data) && i < maxDeaths; i++ {
		if t, ok := readDeath(data[i*deathRecord : (i+1)*deathRecord]); ok {
			list = append(list, t)
		}
		d.old[i] = true
	}
	return d, list, nil
}

// readDeath reads a record. One that was not written whole says nothing.
func readDeath(b []byte) (t market.DiedTask, ok bool) {
	n := int(b[25])
	if n == 0 || 26+n > len(b) || crc32.Checksum(b[4:], castagnoli) != binary.BigEndian.Uint32(b) {
		return t, false
	}
	return market.DiedTask{
		Job: protocol.JobID(b[26 : 26+n]), Stage: protocol.StageIndex(binary.BigEndian.Uint32(b[13:])),
		Index: protocol.TaskIndex(binary.BigEndian.Uint64(b[17:])), Alone: b[12] == 1,
	}, true
}

// began notes that a slot runs a task.
func (d *deaths) began(slot int, r *market.Run) {
	b := make([]byte, deathRecord)
	binary.BigEndian.PutUint64(b[4:], d.incarnation)
	if r.Alone {
		b[12] = 1
	}
	binary.BigEndian.PutUint32(b[13:], uint32(r.Stage))
	binary.BigEndian.PutUint64(b[17:], uint64(r.Index))
	b[25] = byte(copy(b[26:], r.Job.ID))
	binary.BigEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	d.write(slot, b)
}

// ended notes that a slot runs nothing.
func (d *deaths) ended(slot int) { d.write(slot, make([]byte, deathRecord)) }

// told forgets the tasks of earlier starts: the machine has made durable what they mean.
func (d *deaths) told() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for slot := range d.old {
		d.put(slot, make([]byte, deathRecord))
	}
	clear(d.old)
}

func (d *deaths) write(slot int, b []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.old, slot)
	d.put(slot, b)
}

// put writes a record. That it can't costs a hint, no more. mu is held.
func (d *deaths) put(slot int, b []byte) {
	if _, err := d.file.WriteAt(b, int64(slot)*deathRecord); err != nil {
		d.log.Debug("running task not noted", "error", err)
	}
}

func (d *deaths) close() error { return d.file.Close() }
