//go:build !unix

package peer

import (
	"errors"
	"os/exec"
)

func apart(_ *exec.Cmd, as string) error {
	if as != "" {
		return errors.ErrUnsupported
	}
	return nil
}
