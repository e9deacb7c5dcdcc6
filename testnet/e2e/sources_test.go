package e2e

import (
	"testing"

	"github.com/compute-mesh/mesh/testnet/built"
)

func TestResultsAreOfTheseSources(t *testing.T) { built.LookAtSources(t, "../..") }
