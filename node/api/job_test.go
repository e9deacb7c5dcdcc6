package api

import "testing"

func TestFailureSaysNothingTwice(t *testing.T) {
	for want, f := range map[string]Failure{
		"map/0: exit status 1":                                          {Reason: ReasonExit, Exit: 1},
		"map/1: exit status 255":                                        {Task: 1, Reason: ReasonExit, Exit: 255, Detail: "exit status 255"},
		"map/0: exit status 2: no such key":                             {Reason: ReasonExit, Exit: 2, Detail: "no such key"},
		"map/0: trap: unreachable":                                      {Reason: "trap", Detail: "trap: unreachable"},
		"map/0: the time limit of 200ms was passed: read 3":             {Reason: "timeout", Detail: "the time limit of 200ms was passed: read 3"},
		"map/0: memory":                                                 {Reason: "memory"},
		"map/0: meshd died while it ran alone":                          {Reason: ReasonDeath},
		"map/0: meshd died while it and others ran; it next runs alone": {Reason: ReasonSuspect},
		"map/0: passed its time limit after it went on from a checkpoint; it next starts anew": {Reason: ReasonHang},
	} {
		f.Stage = "map"
		if got := f.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
