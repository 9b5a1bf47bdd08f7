//go:build !linux

package powerfs

import (
	"context"
	"errors"
	"runtime"
)

var errElsewhere = errors.New("FUSE: not on " + runtime.GOOS)

// Available says what is missing for a Mount on this machine.
func Available() error { return errElsewhere }

// Mount is a disk that stands in the system's tree of files.
type Mount struct{}

// NewMount fails here.
func NewMount(string, *Disk) (*Mount, error) { return nil, errElsewhere }

// Close does nothing here.
func (*Mount) Close(context.Context) error { return nil }

// Wait returns at once here.
func (*Mount) Wait() {}

// Detach does nothing here.
func Detach(string) error { return nil }
