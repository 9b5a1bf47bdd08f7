package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Check refuses what opening would, while somebody holds the directory, and leaves no trace.
func TestCheckOfDataDirectory(t *testing.T) {
	own := Config{Dir: filepath.Join(t.TempDir(), "data"), Region: "eu", Node: "eu-1", Shards: 1}
	if errs := Check(own); errs != nil {
		t.Fatal(errs)
	}
	d, err := openDir(own.Dir, own.identity())
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	for want, tune := range map[string]func(*Config){
		"":                              func(*Config) {},
		"was created with region eu":    func(c *Config) { c.Region = "us" },
		"was created with name eu-1":    func(c *Config) { c.Node = "eu-2" },
		"was created with shards 1":     func(c *Config) { c.Shards = 2 },
		"was created with mode standal": func(c *Config) { c.Members = &Members{} },
		"gossip key: open /nowhere":     func(c *Config) { c.Mesh = &Mesh{GossipKey: "/nowhere"} },
		`holds "data" but no`:           func(c *Config) { c.Dir = filepath.Dir(c.Dir) },
	} {
		c := own
		tune(&c)
		switch errs := Check(c); {
		case want == "" && errs != nil, want != "" && (len(errs) != 1 || !strings.Contains(errs[0].Error(), want)):
			t.Errorf("%q: %v", want, errs)
		}
	}
	if err := os.WriteFile(filepath.Join(own.Dir, identityFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if errs := Check(own); len(errs) != 1 || !strings.Contains(errs[0].Error(), "is damaged") {
		t.Error(errs)
	}
}
