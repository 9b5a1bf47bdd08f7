package bus

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
)

// The engine writes what a stream is in two files, one after the other, each time that it
// changes. A power cut between them leaves a stream that can't be recovered. Of one that
// holds acknowledged data that is for people to deal with. One that holds nothing of its
// own is deleted and made anew: a mirror, or any where nothing was ever acknowledged.

// unrecoveredError names stored streams that a standalone engine could not recover.
type unrecoveredError struct {
	streams []string
	folder  string // of all streams
	err     error
}

func (e *unrecoveredError) Error() string { return e.err.Error() }
func (e *unrecoveredError) Unwrap() error { return e.err }

// unrecovered adds to a complaint which streams it is about, if any.
func (b *Bus) unrecovered(complaint error) error {
	e := &unrecoveredError{err: complaint}
	for _, h := range b.healthz(server.HealthzOptions{Details: true}).Errors {
		if h.Type == server.HealthzErrorStream && strings.Contains(h.Error, "could not be recovered") {
			e.streams = append(e.streams, h.Stream)
			e.folder = filepath.Join(b.srv.JetStreamConfig().StoreDir, h.Account, "streams")
		}
	}
	if len(e.streams) == 0 {
		return complaint
	}
	return e
}

// forget deletes streams that could not be recovered, if all of them may be; else it
// returns the error as it came.
func (c *Config) forget(err error) error {
	var e *unrecoveredError
	if !errors.As(err, &e) || slices.ContainsFunc(e.streams, func(s string) bool { return !c.Fresh && !c.Mesh.mirrors(s) }) {
		return err
	}
	newServerLog(c.Logger).to.Warn("streams that can't be recovered hold nothing of their own: they are made anew", "streams", e.streams, "error", e.err)
	for _, s := range e.streams {
		if err := os.RemoveAll(filepath.Join(e.folder, s)); err != nil {
			return fmt.Errorf("delete stream %s, which can't be recovered: %w", s, err)
		}
	}
	return nil
}

// mirrors tells whether a stream is a mirror of another region's bucket.
func (m *Mesh) mirrors(stream string) bool {
	return m != nil && slices.ContainsFunc(m.buckets(), func(bucket string) bool {
		return strings.HasPrefix(stream, mirrorStream("", bucket))
	})
}

// sweepProbes removes the files with which the engine tries at each start whether it may
// write. It removes them itself, but a power cut may keep one, which it would then take
// for an account.
func sweepProbes(dir string) error {
	store := filepath.Join(dir, server.JetStreamStoreDir)
	entries, err := os.ReadDir(store)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.Type().IsRegular() && strings.HasPrefix(e.Name(), "_test_") {
			err = errors.Join(err, os.Remove(filepath.Join(store, e.Name())))
		}
	}
	if err != nil {
		return fmt.Errorf("remove what a start has left: %w", err)
	}
	return nil
}
