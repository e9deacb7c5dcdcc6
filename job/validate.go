package job

import (
	"fmt"
	"math"
	"path"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/compute-mesh/mesh/protocol"
)

// What a manifest may say at most. All of it must also fit MaxManifest.
const (
	MaxName      = 128                  // bytes of a job's name
	MaxLifetime  = 365 * 24 * time.Hour // from creation to expiry
	MaxRetention = 365 * 24 * time.Hour // after the end
	MaxReplicas  = 16                   // as many Keeps as a ledger carries without weight
	MaxRetries   = 1000                 // further attempts
	MaxPriority  = 100                  // and -MaxPriority at least
	MaxFiles     = 256                  // files seen by every task
	MaxProgram   = 64 << 20             // bytes of a program: compiling takes 10 to 20 times that in memory
	MaxArgs      = 1024                 // arguments of a stage
	MaxArgBytes  = 64 << 10             // bytes of all its arguments, before and after replacement
	MaxEnv       = 256                  // variables of a stage
	MaxEnvBytes  = 64 << 10             // bytes of all of them
	MaxOkExit    = 256                  // statuses: WASI programs have no more
	MaxStageName = 32                   // bytes
	MaxSplit     = 32                   // bytes of a split rule: a short word and a 63-bit number
	MinMemory    = 64 << 10             // bytes: one WebAssembly page
	MaxMemory    = 4 << 30              // bytes: all that 32-bit WebAssembly can have
	MaxDisk      = 1 << 40              // bytes of /out/ and /tmp/, and of an output
	MaxLog       = 64 << 20             // bytes of a task's log
	MinTimeout   = time.Millisecond     // the wire's unit
)

// Validate tells everything that is wrong with m, each fault as a *Fault that names the
// field, the reason and what to do. It needs nothing but m: not the time, not this
// peer's mesh, not the input.
func (m *Manifest) Validate() error {
	if m.Version != ManifestVersion {
		return fmt.Errorf("job: manifest: it has version %d, this peer knows %d: update mesh: %w", m.Version, ManifestVersion, ErrVersion)
	}
	var f faults
	m.validateIdentity(&f)
	m.validateTimes(&f)
	m.validatePolicy(&f)
	m.validateFiles(&f)
	m.validateStages(&f)
	return f.join()
}

func (m *Manifest) validateIdentity(f *faults) {
	f.check(protocol.ValidMesh(m.Mesh), "Mesh", "use a name of letters, digits, '.', '-' and '_'")
	f.unless(m.Nonce != [16]byte{}, "Nonce", "fill it from crypto/rand", "is all zeros, so that equal jobs would have one ID")
	f.unless(len(m.Name) <= MaxName, "Name", "shorten it", "has %d bytes, at most %d", len(m.Name), MaxName)
	f.unless(validText(m.Name), "Name", "use plain text", "%q is no UTF-8 text without control characters", m.Name)
	f.unless(protocol.ValidPeer(m.Owner), "Owner", "use the peer ID of the owner's Ed25519 key", "%q is no peer ID of an Ed25519 key", m.Owner.String())
	f.unless(protocol.ValidPeer(m.Submitter), "Submitter", "use the submitting peer's ID", "%q is no peer ID of an Ed25519 key", m.Submitter.String())
}

func (m *Manifest) validateTimes(f *faults) {
	const whole = "round it to whole milliseconds"
	f.unless(wholeMilli(m.Created), "Created", whole, "%s has a fraction of a millisecond or is before 1970", m.Created)
	f.unless(wholeMilli(m.Expires), "Expires", whole, "%s has a fraction of a millisecond or is before 1970", m.Expires)
	f.unless(m.Expires.After(m.Created), "Expires", "choose a later time", "%s is not after Created, %s", m.Expires, m.Created)
	f.unless(!m.Expires.After(m.Created.Add(MaxLifetime)), "Expires", "choose an earlier time",
		"is %s after Created, at most %s", m.Expires.Sub(m.Created), MaxLifetime)
	f.unless(m.Retention >= 0 && m.Retention <= MaxRetention, "Retention", "choose --keep in that range",
		"is %s, must be from 0 to %s", m.Retention, MaxRetention)
	f.unless(m.Retention%time.Millisecond == 0, "Retention", whole, "%s has a fraction of a millisecond", m.Retention)
}

func (m *Manifest) validatePolicy(f *faults) {
	f.unless(m.Groups == m.groups(), "Groups", "use Build", "is %d, must be %d: one for every %d bytes of input, but no more than tasks, 1 to %d",
		m.Groups, m.groups(), GroupBytes, protocol.MaxGroups)
	f.unless(m.Replicas >= 0 && m.Replicas <= MaxReplicas, "Replicas", "choose --replicas in that range",
		"is %d, must be from 0 to %d", m.Replicas, MaxReplicas)
	f.unless(m.Retries >= 0 && m.Retries <= MaxRetries, "Retries", "choose --retries in that range",
		"is %d, must be from 0 to %d", m.Retries, MaxRetries)
	f.unless(m.Priority >= -MaxPriority && m.Priority <= MaxPriority, "Priority", "choose --priority in that range",
		"is %d, must be from %d to %d", m.Priority, -MaxPriority, MaxPriority)
}

// validateFiles wants the names sorted and apart from one another, so that all of them
// can stand under /in/.
func (m *Manifest) validateFiles(f *faults) {
	const rename = "choose another with --file FILE:NAME"
	if len(m.Files) > MaxFiles {
		f.unless(false, "Files", "put them into an archive or a directory of inputs", "has %d files, at most %d", len(m.Files), MaxFiles)
		return
	}
	seen := make(map[string]bool, len(m.Files))
	for i, file := range m.Files {
		field := fmt.Sprintf("Files[%d]", i)
		f.check(protocol.ValidName(file.Name), field+".Name", rename)
		f.check(checkLink(file.Root, codecRaw, codecDagPB), field+".Root", "import the file first")
		f.unless(file.Size <= math.MaxInt64, field+".Size", "import the file again", "%d does not fit 63 bits", file.Size)
		f.unless(!seen[file.Name], field+".Name", rename, "%q is there twice", file.Name)
		if i > 0 {
			f.unless(m.Files[i-1].Name <= file.Name, field+".Name", "sort the files by name", "%q stands after %q", file.Name, m.Files[i-1].Name)
		}
		seen[file.Name] = true
	}
	for i, file := range m.Files {
		if protocol.ValidName(file.Name) != nil {
			continue
		}
		for dir := path.Dir(file.Name); dir != "." && dir != "/"; dir = path.Dir(dir) {
			if seen[dir] {
				f.unless(false, fmt.Sprintf("Files[%d].Name", i), rename, "%q needs a directory where the file %q is", file.Name, dir)
			}
		}
	}
}

// Expired tells whether the job is past its expiry: no peer takes it up then.
func (m *Manifest) Expired(now time.Time) bool { return !now.Before(m.Expires) }

func isWordRune(r rune) bool {
	return r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
}

func validText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

func wholeMilli(t time.Time) bool {
	return t.UnixMilli() >= 0 && t.UnixMilli() <= maxMilli && t.Equal(time.UnixMilli(t.UnixMilli()))
}
