package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime/pprof"
	"time"
)

// startProfiles writes node.pprof, which the node's admin port hands out, and
// generator.pprof to dir. The node's covers whole seconds.
func startProfiles(t *target, dir string, length time.Duration) (stop func() error, err error) {
	own, err := os.Create(filepath.Join(dir, "generator.pprof"))
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(own); err != nil {
		return nil, errors.Join(err, own.Close())
	}
	fetched := make(chan error, 1)
	go func() { fetched <- fetchProfile(t.admin, filepath.Join(dir, "node.pprof"), length) }()
	return func() error {
		pprof.StopCPUProfile()
		return errors.Join(<-fetched, own.Close())
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
