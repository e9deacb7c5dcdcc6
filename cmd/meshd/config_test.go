package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func lookup(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := env[name]; return v, ok }
}

// Each setting comes from the first of flags, environment, file and defaults that has it.
func TestWhereSettingsComeFrom(t *testing.T) {
	home := t.TempDir()
	file := "mesh: from-file\nslots: 3\nmemory: 1GiB\nlisten:\n  - /ip4/127.0.0.1/tcp/1\n  - /ip4/127.0.0.1/tcp/2\nlan: false\n"
	if err := os.WriteFile(filepath.Join(home, configName), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := configure([]string{"--mesh", "from-flag"}, lookup(map[string]string{
		"MESH_HOME": home, "MESH_MESH": "from-env", "MESH_SLOTS": "5",
		"MESH_BOOTSTRAP": "/ip4/1.2.3.4/tcp/7740/p2p/a, /ip4/1.2.3.5/tcp/7740/p2p/b", "MESH_LOG_LEVEL": "debug",
	}))
	if err != nil {
		t.Fatal(err)
	}
	c := o.node
	if c.Home != home || c.Mesh != "from-flag" || c.Slots != 5 || c.Memory != 1<<30 || c.LAN || !c.Gossip || c.Quota != 0 {
		t.Errorf("%+v", c)
	}
	if !slices.Equal(c.Listen, []string{"/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/2"}) {
		t.Errorf("listens on %q", c.Listen)
	}
	if !slices.Equal(c.Bootstrap, []string{"/ip4/1.2.3.4/tcp/7740/p2p/a", "/ip4/1.2.3.5/tcp/7740/p2p/b"}) {
		t.Errorf("bootstraps through %q", c.Bootstrap)
	}
	if o.level.String() != "DEBUG" {
		t.Errorf("logs at %s", o.level)
	}
}

func TestBadSettingsAreUsageErrors(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		env  map[string]string
		file string
		want string
	}{
		"unknown flag":   {args: []string{"--nope"}, want: "--nope"},
		"argument":       {args: []string{"extra"}, want: `"extra"`},
		"slots":          {args: []string{"--slots", "-7"}, want: "slots -7"},
		"size":           {args: []string{"--memory", "lots"}, want: `"lots" is no size`},
		"variable":       {env: map[string]string{"MESH_SLOTS": "many"}, want: "MESH_SLOTS"},
		"unknown key":    {file: "slot: 3\n", want: `config.yaml:1: unknown setting "slot"`},
		"bad value":      {file: "mesh: m\nslots: many\n", want: "config.yaml:2:"},
		"no mapping":     {file: "- a\n", want: "config.yaml"},
		"mesh name":      {args: []string{"--mesh", "no spaces"}, want: "no spaces"},
		"http elsewhere": {args: []string{"--http", "0.0.0.0:80"}, want: "loopback"},
	} {
		home := t.TempDir()
		if test.file != "" {
			if err := os.WriteFile(filepath.Join(home, configName), []byte(test.file), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var errs bytes.Buffer
		status := run(append([]string{"--home", home}, test.args...), lookup(test.env), io.Discard, &errs)
		if status != exitUsage || !strings.Contains(errs.String(), test.want) {
			t.Errorf("%s: status %d, %s", name, status, errs.String())
		}
	}
}

func TestHelpShowsWhatAVolunteerNeeds(t *testing.T) {
	var out bytes.Buffer
	if status := run([]string{"--help"}, lookup(nil), &out, io.Discard); status != exitDone {
		t.Fatalf("status %d", status)
	}
	for _, want := range []string{"--home DIR", "--mesh NAME", "--listen ADDR", "--bootstrap ADDR", "--slots N", "--memory SIZE", "--quota SIZE", "--http ADDR"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s is not in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "--testnet") {
		t.Error("the hidden flags show")
	}
}
