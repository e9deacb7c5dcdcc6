package dht

import (
	"fmt"
	"testing"

	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
)

func TestProviderRecordsAreBoundedAndTheGreedyProviderGivesWay(t *testing.T) {
	const most = 100
	s := newProviderStore(most)
	put := func(content, provider string) {
		if err := s.Put(t.Context(), datastore.NewKey("/providers/"+content+"/"+provider), []byte("time")); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10 {
		put(fmt.Sprint("modest", i), "modest")
	}
	for i := range 10 * most {
		put(fmt.Sprint("greedy", i), "greedy")
	}
	put("modest0", "modest") // again: no new record
	all, err := s.Query(t.Context(), query.Query{Prefix: "/providers/"})
	if err != nil {
		t.Fatal(err)
	}
	entries, err := all.Rest()
	if err != nil || len(entries) != most || s.size != most {
		t.Errorf("%d records, size %d, %v; want %d", len(entries), s.size, err, most)
	}
	for i := range 10 {
		if known, err := s.Has(t.Context(), datastore.NewKey(fmt.Sprintf("/providers/modest%d/modest", i))); !known || err != nil {
			t.Errorf("record %d of the modest provider was displaced", i)
		}
	}
}

func TestProviderStoreIsADatastore(t *testing.T) {
	s := newProviderStore(10)
	ctx := t.Context()
	a, b := datastore.NewKey("/providers/x/a"), datastore.NewKey("/providers/x/b")
	batch, err := s.Batch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []datastore.Key{a, b, datastore.NewKey("/providers/xy/a")} {
		if err := batch.Put(ctx, k, []byte(k.String())); err != nil {
			t.Fatal(err)
		}
	}
	if err := batch.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	found, err := s.Query(ctx, query.Query{Prefix: "/providers/x"})
	if err != nil {
		t.Fatal(err)
	}
	if entries, err := found.Rest(); err != nil || len(entries) != 2 {
		t.Errorf("records of one content: %v, %v", entries, err)
	}
	if v, err := s.Get(ctx, b); err != nil || string(v) != b.String() {
		t.Errorf("get: %q, %v", v, err)
	}
	if n, err := s.GetSize(ctx, b); err != nil || n != len(b.String()) {
		t.Errorf("size: %d, %v", n, err)
	}
	for range 2 { // a key that is not there is no error
		if err := s.Delete(ctx, b); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Get(ctx, b); err != datastore.ErrNotFound {
		t.Errorf("deleted: %v", err)
	}
	if s.size != 2 || len(s.share["b"]) != 0 {
		t.Errorf("size %d, share %v", s.size, s.share)
	}
}
