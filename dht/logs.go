package dht

import (
	"log/slog"
	"os"

	logging "github.com/ipfs/go-log/v2"
	"github.com/libp2p/go-libp2p/gologshim"
)

// QuietLibraries sends the logs of libp2p and its relatives nowhere, for the whole process: what a person should know
// is in Config.Log. With GOLOG_LOG_LEVEL set (debug, say) they stay on standard error. Call it from main, before New.
func QuietLibraries() {
	if os.Getenv("GOLOG_LOG_LEVEL") != "" {
		return
	}
	gologshim.SetDefaultHandler(slog.DiscardHandler)
	config := logging.GetConfig()
	config.Stderr, config.Stdout, config.Level = false, false, logging.LevelFatal
	logging.SetupLogging(config)
	// quic-go prints a note about the kernel's UDP buffers through the standard logger; QUIC is a second choice here.
	_ = os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
}
