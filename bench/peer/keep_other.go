//go:build !unix

package peer

import (
	"errors"
	"os"
	"os/exec"
)

func apart(_ *exec.Cmd, as string) error {
	if as != "" {
		return errors.ErrUnsupported
	}
	return nil
}

// killServer kills a server, also one that is gone.
func killServer(pid int) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return nil // gone
	}
	if err := p.Kill(); !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}
