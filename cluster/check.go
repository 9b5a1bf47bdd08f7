package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/stockmesh/stockmesh/cluster/gossip"
)

// Check says what Open would refuse for what is on disk: a data directory that isn't this
// node's, keyrings that can't be read. It changes nothing and takes no lock, so a node
// may run on the directory meanwhile.
func Check(config Config) []error {
	var errs []error
	if err := checkDir(config.Dir, config.identity()); err != nil {
		errs = append(errs, err)
	}
	var keyring string
	if config.Members != nil {
		keyring = config.Members.GossipKey
	}
	if config.Mesh != nil {
		keyring = config.Mesh.GossipKey
	}
	if keyring != "" {
		if err := gossip.CheckKeyFile(keyring); err != nil {
			errs = append(errs, fmt.Errorf("gossip key: %w", err))
		}
	}
	return errs
}

// identity is what a data directory of this configuration remembers.
func (c *Config) identity() identity {
	mode := modeStandalone
	if c.clustered() {
		mode = modeClustered
	}
	return identity{Mode: mode, Region: c.Region, Node: c.Node, Shards: c.Shards}
}

// checkDir takes a directory that is missing for one that Open will make.
func checkDir(path string, want identity) error {
	d := &dataDir{path: path}
	b, err := os.ReadFile(filepath.Join(path, identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return d.vacant()
	}
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if err := json.Unmarshal(b, &d.identity); err != nil {
		return fmt.Errorf("data directory %s: %s is damaged: %w", path, identityFile, err)
	}
	return d.check(want)
}
