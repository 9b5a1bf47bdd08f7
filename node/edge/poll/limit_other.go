//go:build !unix

package poll

import "errors"

// FileLimit fails: this system has no such limit to ask for.
func FileLimit() (uint64, error) { return 0, failed("file limit", errors.ErrUnsupported) }

// RaiseFileLimit fails: this system has no such limit to raise.
func RaiseFileLimit() (uint64, error) { return FileLimit() }
