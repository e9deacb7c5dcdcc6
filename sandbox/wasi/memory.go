package wasi

import "encoding/binary"

// memory is the guest's linear memory during one call. An access outside of it yields zeros, changes nothing and marks
// the call as faulted, so a function need not check every access; Call returns EFAULT for it. Functions take all their
// inputs before they change anything.
type memory struct {
	bytes []byte
	fault bool
}

// slice is the n bytes of guest memory at ptr, or nil.
func (m *memory) slice(ptr, n uint32) []byte {
	end := uint64(ptr) + uint64(n)
	if end > uint64(len(m.bytes)) {
		m.fault = true
		return nil
	}
	return m.bytes[ptr:end:end]
}

func (m *memory) u8(ptr uint32) uint8 {
	if b := m.slice(ptr, 1); b != nil {
		return b[0]
	}
	return 0
}

func (m *memory) u16(ptr uint32) uint16 {
	if b := m.slice(ptr, 2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (m *memory) u32(ptr uint32) uint32 {
	if b := m.slice(ptr, 4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (m *memory) u64(ptr uint32) uint64 {
	if b := m.slice(ptr, 8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (m *memory) putU32(ptr, v uint32) {
	if b := m.slice(ptr, 4); b != nil {
		binary.LittleEndian.PutUint32(b, v)
	}
}

func (m *memory) putU64(ptr uint32, v uint64) {
	if b := m.slice(ptr, 8); b != nil {
		binary.LittleEndian.PutUint64(b, v)
	}
}

// strings writes a table of pointers at table and the NUL-terminated strings that they point to at buf.
func (m *memory) strings(list []string, table, buf uint32) {
	for i, v := range list {
		m.putU32(table+uint32(i)*4, buf)
		if b := m.slice(buf, uint32(len(v))+1); b != nil {
			copy(b, v)
			b[len(v)] = 0
		}
		buf += uint32(len(v)) + 1
	}
}

// sizes writes how many strings there are and how many bytes they take.
func (m *memory) sizes(list []string, count, size uint32) {
	n := 0
	for _, v := range list {
		n += len(v) + 1
	}
	m.putU32(count, uint32(len(list)))
	m.putU32(size, uint32(n))
}

// vectors calls f with each buffer of a scatter or gather list, until f returns false.
func (m *memory) vectors(ptr, n uint32, f func(b []byte) bool) errno {
	if n > MaxVectors {
		return eInval
	}
	for i := range n {
		base, length := m.u32(ptr+8*i), m.u32(ptr+8*i+4)
		b := m.slice(base, length)
		if m.fault {
			return eFault
		}
		if len(b) > 0 && !f(b) {
			break
		}
	}
	return 0
}
