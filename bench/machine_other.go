//go:build !linux

package main

import (
	"errors"
	"fmt"
	"runtime"
	"time"
)

var errNotHere = fmt.Errorf("reading another process's memory and CPU time needs Linux, not %s: %w", runtime.GOOS, errors.ErrUnsupported)

func stepBack() error                        { return nil }
func cpuModel() string                       { return "unknown CPU" }
func kernelRelease() string                  { return "unknown" }
func residentBytes(pid int) (int64, error)   { return 0, errNotHere }
func cpuTime(pid int) (time.Duration, error) { return 0, errNotHere }
