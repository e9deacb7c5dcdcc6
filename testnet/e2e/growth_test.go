package e2e

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/compute-mesh/mesh/node/api"
)

// burden is what a peer's meshd has of its machine, by name.
type burden map[string]int64

// metered are the metrics that are a burden.
var metered = []string{"go_goroutines", "go_memstats_heap_alloc_bytes", "process_open_fds", "mesh_store_chunks", "mesh_jobs"}

// burden asks a peer of a testnet, after it has collected its garbage of both kinds.
func (p peer) burden(t *testing.T) burden {
	t.Helper()
	p.ok(t, "gc")
	socket, _, err := api.SocketPath(p.home)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{Dial: func(string, string) (net.Conn, error) { return net.Dial("unix", socket) }}
	defer transport.CloseIdleConnections()
	get := func(transport *http.Transport, url string) string {
		t.Helper()
		r, err := (&http.Client{Transport: transport}).Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		text, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s, %v", url, r.Status, err)
		}
		return string(text)
	}
	get(transport, "http://meshd/debug/pprof/heap?gc=1")
	b := burden{"files": files(t, p.home)}
	lines := bufio.NewScanner(strings.NewReader(get(&http.Transport{DisableKeepAlives: true}, p.self(t).Dashboard+"/metrics")))
	for lines.Scan() {
		name, text, _ := strings.Cut(lines.Text(), " ")
		for _, m := range metered {
			if value, err := strconv.ParseFloat(text, 64); name == m && err == nil {
				b[m] = int64(value)
			}
		}
	}
	return b
}

// files counts what is in a home.
func files(t *testing.T, dir string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return nil // a file may go while it is counted
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// mayGrow is what may be more after so many jobs than before: some goroutines and files come and go with connections.
// Of a job that was removed its final state stays, until nobody can bring it back.
func mayGrow(jobs int) burden {
	const finalState = 2 << 10
	return burden{
		"go_goroutines": 16, "process_open_fds": 16, "files": 16, "mesh_store_chunks": 8, "mesh_jobs": 8,
		"go_memstats_heap_alloc_bytes": 2<<20 + int64(jobs)*finalState,
	}
}

// Jobs that have been done and removed leave nothing behind but the word of their end.
func TestChaosManyJobsLeaveNothing(t *testing.T) {
	m := up(t, 3)
	jobs := func(n int) {
		for i := range n {
			p := m.peers[i%len(m.peers)]
			r := p.run(t, "--json", "submit", "--array", "4", "--map", program("index"), "--replicas", "2",
				"-o", filepath.Join(t.TempDir(), "out")).want(t, 0)
			p.ok(t, "rm", jobOf(t, r.out))
		}
	}
	jobs(size(3, 100)) // pools and caches have filled
	before := make([]burden, len(m.peers))
	for i, p := range m.peers {
		before[i] = p.burden(t)
	}
	n := size(40, 1000)
	jobs(n)
	for i, p := range m.peers {
		var worst string
		eventually(t, "what the jobs left has gone", func() bool {
			worst = ""
			after := p.burden(t)
			for name, may := range mayGrow(n) {
				if grown := after[name] - before[i][name]; grown > may {
					worst = fmt.Sprintf("%s has grown by %d from %d, may by %d", name, grown, before[i][name], may)
				}
			}
			return worst == ""
		})
		figure(t, fmt.Sprintf("peer %d before", i), before[i])
		figure(t, fmt.Sprintf("peer %d after %d jobs", i, n), p.burden(t))
	}
}
