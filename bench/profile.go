package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime/pprof"
	"sync"
	"time"
)

// startProfiles writes generator.pprof and one that the node's admin port hands out to
// dir: node.pprof, or in a region one of each node's name. A node's covers whole
// seconds.
func startProfiles(t *target, dir string, length time.Duration) (stop func() error, err error) {
	own, err := os.Create(filepath.Join(dir, "generator.pprof"))
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(own); err != nil {
		return nil, errors.Join(err, own.Close())
	}
	errs := make([]error, len(t.nodes))
	var fetches sync.WaitGroup
	for i, n := range t.nodes {
		name := "node"
		if len(t.nodes) > 1 {
			name = n.name
		}
		fetches.Go(func() { errs[i] = fetchProfile(n.Admin, filepath.Join(dir, name+".pprof"), length) })
	}
	return func() error {
		pprof.StopCPUProfile()
		fetches.Wait()
		return errors.Join(append(errs, own.Close())...)
	}, nil
}

func fetchProfile(admin, file string, length time.Duration) error {
	resp, err := http.Get(fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", admin, max(1, int(length.Seconds()))))
	if err != nil {
		return fmt.Errorf("the node's profile: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the node's profile: %s %w", resp.Status, err)
	}
	return os.WriteFile(file, b, 0o644)
}
