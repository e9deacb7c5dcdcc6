package api

// Self describes a running peer.
type Self struct {
	Peer      string   `json:"peer"`
	Mesh      string   `json:"mesh"`
	Owner     string   `json:"owner"` // peer ID of the key that signs its user's jobs
	Home      string   `json:"home"`
	Socket    string   `json:"socket"`
	Fallback  bool     `json:"socket_fallback,omitempty"` // the socket is outside the home, whose path is too long
	Dashboard string   `json:"dashboard,omitempty"`       // "http://127.0.0.1:PORT"
	Addrs     []string `json:"addrs"`
	PID       int      `json:"pid"`
	Uptime    float64  `json:"uptime_seconds"`
	Version   string   `json:"version"`
	Engine    string   `json:"engine"`
	Slots     int      `json:"slots"`
	Running   int      `json:"running"` // tasks, now
	Memory    uint64   `json:"memory"`  // bytes lent
	Peers     int      `json:"peers"`   // connected
	Jobs      int      `json:"jobs"`    // known and not ended
	Stored    uint64   `json:"stored"`  // bytes
	Quota     uint64   `json:"quota"`   // bytes
	Draining  bool     `json:"draining,omitempty"`
}

// ID is how other machines find this peer.
type ID struct {
	Peer  string   `json:"peer"`
	Mesh  string   `json:"mesh"`
	Owner string   `json:"owner"`
	Addrs []string `json:"addrs"` // multiaddresses that end in /p2p/ and the peer ID
	Join  string   `json:"join"`  // the command that another machine types
}

// Peer is another peer of the mesh.
type Peer struct {
	Peer    string   `json:"peer"`
	Addrs   []string `json:"addrs"`
	RTT     float64  `json:"rtt_ms,omitempty"`
	Agent   string   `json:"agent,omitempty"`
	Inbound bool     `json:"inbound,omitempty"`
	Relayed bool     `json:"relayed,omitempty"`
}

// Level says how bad a check's finding is.
type Level string

const (
	LevelOK      Level = "ok"
	LevelWarning Level = "warning"
	LevelError   Level = "error"
)

// Check is one finding of the doctor.
type Check struct {
	Name   string `json:"check"`
	Level  Level  `json:"level"`
	Detail string `json:"detail"`
	Advice string `json:"advice,omitempty"`
}

// Store is how full the chunk store is. Sizes are bytes.
type Store struct {
	Chunks uint64 `json:"chunks"`
	Bytes  uint64 `json:"bytes"`
	Quota  uint64 `json:"quota"`
	Pinned uint64 `json:"pinned"` // roots that are pinned by hand
	Free   uint64 `json:"free"`   // on the disk
}

// GC is what a collection dropped.
type GC struct {
	Chunks uint64 `json:"chunks"`
	Bytes  uint64 `json:"bytes"`
}

// Version says what runs.
type Version struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
	Engine  string `json:"engine,omitempty"`
}

// Drained is what a drain handed back.
type Drained struct {
	Ranges uint64 `json:"ranges"`
	Chunks uint64 `json:"chunks"` // given to others meanwhile: what only this peer had among them
}
