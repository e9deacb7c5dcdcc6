package node

import (
	"net/http"
	"net/http/pprof"
	"runtime"
)

// withProfiles serves what the daemon can tell about itself, as net/http/pprof does, beside the API: to the user alone, on
// the API's socket, not on the loopback address that everybody on the machine can ask.
func withProfiles(api http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", api)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /debug/pprof/block", contention(func(on bool) {
		rate := 0
		if on {
			rate = blockRate
		}
		runtime.SetBlockProfileRate(rate)
	}))
	mux.HandleFunc("GET /debug/pprof/mutex", contention(func(on bool) {
		fraction := 0
		if on {
			fraction = mutexFraction
		}
		runtime.SetMutexProfileFraction(fraction)
	}))
	return mux
}

// blockRate is one sample for each 10 µs that goroutines wait, mutexFraction one for each tenth time that a lock is held
// up: both cost less than a hundredth of the time.
const (
	blockRate     = 10_000
	mutexFraction = 10
)

// contention serves a profile that is recorded only while it is asked for, with ?seconds=N.
func contention(record func(on bool)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		record(true)
		defer record(false)
		pprof.Index(w, r)
	}
}
