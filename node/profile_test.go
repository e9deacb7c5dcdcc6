package node

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestProfilesBesideTheAPI: what is not a profile goes to the API, and contention can be asked for though nothing records it.
func TestProfilesBesideTheAPI(t *testing.T) {
	h := withProfiles(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	for path, want := range map[string]int{
		"/v1/self":                       http.StatusTeapot,
		"/debug/pprof/goroutine?debug=1": http.StatusOK,
		"/debug/pprof/mutex?debug=1":     http.StatusOK,
		"/debug/pprof/block?debug=1":     http.StatusOK,
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != want {
			t.Errorf("%s: status %d, want %d", path, w.Code, want)
		}
		if want == http.StatusOK && !strings.Contains(w.Body.String(), "cycles/second") && !strings.HasPrefix(w.Body.String(), "goroutine profile") {
			t.Errorf("%s: %.80q is no profile", path, w.Body)
		}
	}
}
