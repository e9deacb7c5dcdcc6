package dht

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
)

const (
	// ProvideValidity is how long a provider record is good; Provide again every ReprovideEvery, so that one missed
	// turn loses nothing.
	ProvideValidity = 24 * time.Hour
	ReprovideEvery  = 8 * time.Hour
	// maxProviderRecords bounds the records kept for the mesh: at some 250 bytes, 8 MB.
	maxProviderRecords = 32 << 10
	// provideTimeout, findTimeout bound Provide and FindProviders: a few round trips, with peers that are gone.
	provideTimeout = 15 * time.Second
	findTimeout    = 5 * time.Second
	// maxProviders bounds what FindProviders returns.
	maxProviders = 32
)

// providerStore keeps provider records in memory, a bounded number: when full, the provider with the most records
// gives one up, so a peer that provides without end displaces only itself. Records are lost with the process; their
// providers renew them.
//
// It is the datastore of kad-dht's provider manager, whose keys are /providers/<content>/<provider>.
type providerStore struct {
	most int

	mu      sync.RWMutex
	content map[string]map[string][]byte // content key, provider: the record
	share   map[string]map[string]bool   // provider: its content keys
	size    int
}

var _ datastore.Batching = (*providerStore)(nil)

func newProviderStore(most int) *providerStore {
	return &providerStore{most: most, content: make(map[string]map[string][]byte), share: make(map[string]map[string]bool)}
}

// split cuts a key at its last slash.
func split(k string) (content, provider string) {
	i := strings.LastIndexByte(k, '/')
	return k[:max(i, 0)], k[i+1:]
}

func (s *providerStore) Put(_ context.Context, k datastore.Key, value []byte) error {
	content, provider := split(k.String())
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.content[content][provider]; !known {
		if s.size >= s.most {
			s.displace()
		}
		if s.content[content] == nil {
			s.content[content] = make(map[string][]byte)
		}
		if s.share[provider] == nil {
			s.share[provider] = make(map[string]bool)
		}
		s.share[provider][content] = true
		s.size++
	}
	s.content[content][provider] = value
	return nil
}

// displace drops one record of the provider with the most.
func (s *providerStore) displace() {
	var richest string
	for p, keys := range s.share {
		if len(keys) > len(s.share[richest]) {
			richest = p
		}
	}
	for content := range s.share[richest] {
		s.remove(content, richest)
		return
	}
}

func (s *providerStore) remove(content, provider string) {
	if _, known := s.content[content][provider]; !known {
		return
	}
	s.size--
	delete(s.content[content], provider)
	if len(s.content[content]) == 0 {
		delete(s.content, content)
	}
	delete(s.share[provider], content)
	if len(s.share[provider]) == 0 {
		delete(s.share, provider)
	}
}

func (s *providerStore) Delete(_ context.Context, k datastore.Key) error {
	content, provider := split(k.String())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(content, provider)
	return nil
}

func (s *providerStore) Get(_ context.Context, k datastore.Key) ([]byte, error) {
	content, provider := split(k.String())
	s.mu.RLock()
	defer s.mu.RUnlock()
	value, known := s.content[content][provider]
	if !known {
		return nil, datastore.ErrNotFound
	}
	return value, nil
}

func (s *providerStore) Has(ctx context.Context, k datastore.Key) (bool, error) {
	_, err := s.Get(ctx, k)
	return err == nil, nil
}

func (s *providerStore) GetSize(ctx context.Context, k datastore.Key) (int, error) {
	value, err := s.Get(ctx, k)
	if err != nil {
		return -1, err
	}
	return len(value), nil
}

// Query answers for one content key at the cost of its records, for any other prefix at the cost of all.
func (s *providerStore) Query(_ context.Context, q query.Query) (query.Results, error) {
	prefix := strings.TrimSuffix(q.Prefix, "/")
	var entries []query.Entry
	add := func(content string, records map[string][]byte) {
		for provider, value := range records {
			entries = append(entries, query.Entry{Key: content + "/" + provider, Value: value, Size: len(value)})
		}
	}
	s.mu.RLock()
	if records, one := s.content[prefix]; one {
		add(prefix, records)
	} else {
		for content, records := range s.content {
			if strings.HasPrefix(content, prefix+"/") {
				add(content, records)
			}
		}
	}
	s.mu.RUnlock()
	return query.NaiveQueryApply(q, query.ResultsWithEntries(q, entries)), nil
}

func (s *providerStore) Batch(context.Context) (datastore.Batch, error) {
	return datastore.NewBasicBatch(s), nil
}

func (s *providerStore) Sync(context.Context, datastore.Key) error { return nil }
func (s *providerStore) Close() error                              { return nil }
