package cluster

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"crypto/rand"

	"github.com/gofrs/flock"
)

// identity is what a data directory remembers of its creation. The engine would
// delete the streams of a node that comes back as something else, so a directory
// is opened as what it was made for, or not at all.
type identity struct {
	Format      int    `json:"format"`
	Mode        string `json:"mode"` // standalone or clustered
	Region      string `json:"region"`
	Node        string `json:"node"`
	Shards      int    `json:"shards"`
	Incarnation string `json:"incarnation"` // random: tells this bucket from one re-created later
	Complete    bool   `json:"complete"`    // streams exist; from now on a missing one is damage

	// Joined: the engine ran on it as one of a region, which knows the node's name.
	Joined bool `json:"joined,omitempty"`

	// Revoked: a bucket of revocations exists; from now on a missing one is damage.
	Revoked bool `json:"revoked,omitempty"`

	// Routes are those of the other nodes when they were last seen: the engine of a
	// node that starts before it has heard of anybody needs one.
	Routes []string `json:"routes,omitempty"`

	// Holders are the names of the nodes that held the region's data when they were last
	// seen, joined by commas.
	Holders string `json:"holders,omitempty"`

	// Peers are the links of other regions' nodes, and WAN their membership addresses,
	// when they were last seen.
	Peers map[string][]string `json:"peers,omitempty"`
	WAN   []string            `json:"wan,omitempty"`

	// OwnWAN is the address that this node's own name for other regions stood for, by name.
	OwnWAN map[string]string `json:"own_wan,omitempty"`
}

const (
	dirFormat      = 1
	identityFile   = "stockmesh.json"
	lockFile       = "stockmesh.lock"
	modeStandalone = "standalone"
	modeClustered  = "clustered"
)

// dataDir is a directory held by this process alone.
type dataDir struct {
	path string
	lock *flock.Flock
	mu   sync.Mutex // of what changes while the node runs: Revoked, Routes, Holders, Peers, WAN, OwnWAN, and of saving
	identity
}

// openDir locks the directory and checks, or on first use writes, its identity.
func openDir(path string, want identity) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o750); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	d := &dataDir{path: path, lock: flock.New(filepath.Join(path, lockFile))}
	ok, err := d.lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock data directory %s: %w", path, err)
	}
	if !ok {
		return nil, fmt.Errorf("data directory %s is in use by another process", path)
	}
	if err := d.load(want); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func (d *dataDir) close() error { return d.lock.Unlock() }

func (d *dataDir) load(want identity) error {
	b, err := os.ReadFile(filepath.Join(d.path, identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		return d.create(want)
	}
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if err := json.Unmarshal(b, &d.identity); err != nil {
		return fmt.Errorf("data directory %s: %s is damaged: %w", d.path, identityFile, err)
	}
	return d.check(want)
}

func (d *dataDir) check(want identity) error {
	have := d.identity
	mismatch := func(what, is, asked any, out string) error {
		return fmt.Errorf("data directory %s was created with %s %v and can't be opened with %s %v: %s", d.path, what, is, what, asked, out)
	}
	const elsewhere = "start it as it was, or give this node another --data directory"
	switch {
	case have.Format != dirFormat:
		return mismatch("format", have.Format, dirFormat, "use the version of stockmesh that wrote it")
	case have.Mode != want.Mode:
		// The engine would delete the streams of such a directory as orphans.
		return mismatch("mode", have.Mode, want.Mode, "start it as it was, or take its data along with `stockctl backup` and `stockctl restore`")
	case have.Region != want.Region:
		return mismatch("region", have.Region, want.Region, elsewhere)
	case have.Node != want.Node:
		return mismatch("name", have.Node, want.Node, elsewhere)
	case have.Shards != want.Shards:
		return mismatch("shards", have.Shards, want.Shards, "the number of shards is fixed at the first start")
	}
	return nil
}

// vacant refuses a directory that holds anything of somebody else.
func (d *dataDir) vacant() error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	for _, e := range entries {
		if e.Name() != lockFile && e.Name() != restoreFile && e.Name() != "lost+found" {
			return fmt.Errorf("data directory %s holds %q but no %s: it is not stockmesh's, or was damaged; give an empty directory", d.path, e.Name(), identityFile)
		}
	}
	return nil
}

// create makes a directory that holds nothing yet this node's.
func (d *dataDir) create(want identity) error {
	if err := d.vacant(); err != nil {
		return err
	}
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return fmt.Errorf("incarnation: %w", err)
	}
	d.identity = want
	d.Format, d.Incarnation = dirFormat, hex.EncodeToString(id[:])
	return d.save()
}

// complete records that every stream of this incarnation exists, once that would outlast
// a power cut.
func (d *dataDir) complete(incarnation string) error {
	if d.Complete {
		return nil
	}
	if err := syncTree(d.path); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	d.Complete, d.Incarnation = true, incarnation
	return d.save()
}

// join records that the engine is about to run as one of a region.
func (d *dataDir) join() error {
	if d.Joined {
		return nil
	}
	d.Joined = true
	return d.save()
}

// revokes records that revocations are kept.
func (d *dataDir) revokes() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.Revoked {
		return nil
	}
	d.Revoked = true
	return d.save()
}

// remember records the routes of the other nodes.
func (d *dataDir) remember(routes []string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(routes) == 0 || slices.Equal(routes, d.Routes) {
		return nil
	}
	d.Routes = routes
	return d.save()
}

// rememberHolders records who holds the region's data.
func (d *dataDir) rememberHolders(names string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.Holders == names {
		return nil
	}
	d.Holders = names
	return d.save()
}

// rememberPeers records where other regions are. Membership addresses are kept while
// nobody is heard of.
func (d *dataDir) rememberPeers(peers map[string][]string, wan []string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	slices.Sort(wan)
	if len(wan) == 0 {
		wan = d.WAN
	}
	if maps.EqualFunc(peers, d.Peers, slices.Equal) && slices.Equal(wan, d.WAN) {
		return nil
	}
	d.Peers, d.WAN = peers, wan
	return d.save()
}

// rememberOwnWAN records what this node's name for other regions stands for.
func (d *dataDir) rememberOwnWAN(name, addr string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.OwnWAN[name] == addr {
		return nil
	}
	d.OwnWAN = map[string]string{name: addr}
	return d.save()
}

// save replaces the identity file so that a power cut leaves the old or the new.
func (d *dataDir) save() error {
	b, err := json.MarshalIndent(d.identity, "", "  ")
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	name := filepath.Join(d.path, identityFile)
	if err := writeSynced(name+".new", append(b, '\n')); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	return syncDir(d.path)
}

// syncTree makes the names of all that lies below a directory durable, and its own. The
// engine syncs files, which on most file systems keeps their names, but not on all.
func syncTree(path string) error {
	err := filepath.WalkDir(path, func(at string, e fs.DirEntry, err error) error {
		if e != nil && e.IsDir() && e.Name() == "lost+found" {
			return fs.SkipDir // the file system's own, which we may not read
		}
		if err == nil && e.IsDir() {
			err = syncDir(at)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the engine has replaced it meanwhile
		}
		return err
	})
	above := syncDir(filepath.Dir(path))
	if errors.Is(above, fs.ErrPermission) {
		above = nil // it was made for us, by somebody who has seen to that
	}
	return errors.Join(err, above)
}

func writeSynced(name string, b []byte) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	return nil
}
