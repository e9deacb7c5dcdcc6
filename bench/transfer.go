package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
)

// bareDisk writes a file and waits until it is on the disk, and hashes it once more: an import has to do both.
func (b *bench) bareDisk(context.Context) error {
	file := filepath.Join(b.dir, "noise")
	defer os.Remove(file)
	data := make([]byte, 1<<20)
	r, err := measure(nil, func() error { return fill(file, data, b.file) })
	if err != nil {
		return err
	}
	mb := float64(b.file) / 1e6
	b.figures.addIdeal("disk", r, mb/r.wall.Seconds())
	h := sha256.New()
	r, err = measure(nil, func() error { return checksum(file, h) })
	b.figures.addIdeal("import", r, mb/r.wall.Seconds())
	return err
}

// transfer imports a file at one peer, has another one keep it, and reads it there. The queues have nothing like it.
func (b *bench) transfer(ctx context.Context, s system, round int) error {
	m, ok := s.(*mesh)
	if !ok {
		return nil
	}
	mb, gib := float64(b.file)/1e6, float64(b.file)/(1<<30)
	file := filepath.Join(b.dir, "noise")
	defer os.Remove(file)
	add := func(seed int) (cid string, r reading, err error) {
		if err := noise(file, b.file, uint64(seed)); err != nil {
			return "", r, err
		}
		r, err = measure(m.daemons(), func() (err error) { cid, err = m.add(ctx, file); return err })
		return cid, r, err
	}
	cid, r, err := add(2 * round)
	if err != nil {
		return err
	}
	b.figures.add("import", s, r, mb/r.wall.Seconds())
	b.figures.add("import cpu", s, r, r.cpu/gib)
	one, err := measure(m.daemons(), func() error { return m.pin(ctx, cid, 1) })
	if err != nil {
		return err
	}
	b.figures.add("transfer", s, one, mb/one.wall.Seconds())
	b.figures.add("transfer cpu", s, one, one.cpu/gib)
	got, want := crc32.New(castagnoli), crc32.New(castagnoli)
	r, err = measure(m.daemons(), func() error { return m.cat(ctx, cid, got) })
	if err != nil {
		return err
	}
	b.figures.add("read", s, r, mb/r.wall.Seconds())
	if err := checksum(file, want); err != nil {
		return err
	}
	if got.Sum32() != want.Sum32() {
		return errors.New("WRONG BYTES: what was read is not what was added")
	}
	if cid, _, err = add(2*round + 1); err != nil {
		return err
	}
	all, err := measure(m.daemons(), func() error { return m.pin(ctx, cid, 1, 2, 3) })
	if err != nil {
		return err
	}
	b.figures.add("spread", s, all, all.wall.Seconds()/one.wall.Seconds())
	b.figures.add("spread cpu", s, all, all.cpu/gib/(workers-1))
	return nil
}
