//go:build !unix

package clustertest

import (
	"errors"
	"os"
	"syscall"
)

// CanPause tells whether nodes can be paused on this system.
const CanPause = false

var errNoPause = errors.New("this system can't pause a process")

func ownGroup() *syscall.SysProcAttr { return nil }

func pauseProcess(*os.Process) error { return errNoPause }

func resumeProcess(*os.Process) error { return errNoPause }
