//go:build !linux

package main

import (
	"context"
	"errors"
)

// disks are the small disks of some nodes: there are none here.
type disks struct{}

func (s *soakTrial) lacksDisk() string { return "small disks are made on Linux only" }

func (s *soakTrial) layDisks() error { return nil }

func (s *soakTrial) fill(*node) (func(context.Context) error, error) {
	return nil, errors.ErrUnsupported
}

func (disks) save([]*node) error { return nil }
func (disks) close()             {}
