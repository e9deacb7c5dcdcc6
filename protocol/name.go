package protocol

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/protocol"
)

// What a name may measure: what common file systems take.
const (
	MaxName      = 1024 // bytes of a whole name
	MaxComponent = 255  // bytes between two slashes
)

// ValidName tells what is wrong with the name of a file in /in/ or /out/: it is
// relative, slash-separated, of components that are not empty, "." or "..", valid UTF-8
// without control characters and backslashes, within MaxName and MaxComponent. The name
// is data all the same: who writes files by it does so under a root that cannot be left.
func ValidName(name string) error {
	switch {
	case name == "":
		return fault("name", "empty", ErrInvalid)
	case len(name) > MaxName:
		return fault("name", fmt.Sprintf("%d bytes, at most %d", len(name), MaxName), ErrSize)
	case !utf8.ValidString(name):
		return fault(fmt.Sprintf("name %q", name), "not UTF-8", ErrInvalid)
	}
	for _, r := range name {
		if r == '\\' || unicode.IsControl(r) {
			return fault(fmt.Sprintf("name %q", name), fmt.Sprintf("contains %q", r), ErrInvalid)
		}
	}
	for component := range strings.SplitSeq(name, "/") {
		switch {
		case component == "" || component == "." || component == "..":
			return fault(fmt.Sprintf("name %q", name), fmt.Sprintf("has the component %q", component), ErrInvalid)
		case len(component) > MaxComponent:
			return fault(fmt.Sprintf("name %q", name), fmt.Sprintf("has a component over %d bytes", MaxComponent), ErrSize)
		}
	}
	return nil
}

// MaxMesh bounds the name of a mesh: a DNS label, so that it fits wherever names go.
const MaxMesh = 63

// ValidMesh tells what is wrong with the name of a mesh: 1 to MaxMesh letters, digits,
// dots, underscores and hyphens of ASCII, the first a letter or a digit.
func ValidMesh(mesh string) error {
	if mesh == "" || len(mesh) > MaxMesh {
		return fault(fmt.Sprintf("mesh name %.80q", mesh), fmt.Sprintf("has %d bytes, not 1 to %d", len(mesh), MaxMesh), ErrInvalid)
	}
	for i := range len(mesh) {
		b := mesh[i]
		alphanumeric := 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9'
		if !alphanumeric && (i == 0 || !strings.ContainsRune("._-", rune(b))) {
			return fault(fmt.Sprintf("mesh name %q", mesh), fmt.Sprintf("has %q at %d", b, i), ErrInvalid)
		}
	}
	return nil
}

// Swarm is the protocol of kept streams between the peers of a job: frames that are
// each a SwarmMessage, in both directions, without an order between them.
func Swarm(mesh string) protocol.ID { return protocol.ID("/mesh/" + mesh + "/swarm/1.0.0") }

// Query is the protocol of requests to any peer about jobs: a frame out, a frame back,
// on a stream of their own.
func Query(mesh string) protocol.ID { return protocol.ID("/mesh/" + mesh + "/query/1.0.0") }

// Topic is the gossipsub topic of announcements: each message is one signed envelope.
func Topic(mesh string) string { return "/mesh/" + mesh + "/jobs/1.0.0" }
