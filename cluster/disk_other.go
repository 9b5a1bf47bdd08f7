//go:build !unix

package cluster

import "errors"

// volume is the room of a file system, in bytes.
type volume struct{ total, free float64 }

// used is the fill level, 0 to 1.
func (volume) used() float64 { return 0 }

// volumeOf can't tell on this system.
func volumeOf(string) (volume, error) { return volume{}, errors.ErrUnsupported }

// diskProblem can't tell on this system.
func diskProblem(string) error { return nil }

// storeLimit can't tell on this system: no limit but the disk.
func storeLimit(string) (int64, error) { return 0, nil }
