//go:build unix

package clustertest

import (
	"os"
	"syscall"
)

// CanPause tells whether nodes can be paused on this system.
const CanPause = true

// ownGroup keeps a terminal's Ctrl-C from the nodes, which the test ends in its own
// order. And the system wakes a paused node that the test left behind by dying.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func pauseProcess(p *os.Process) error { return p.Signal(syscall.SIGSTOP) }

func resumeProcess(p *os.Process) error { return p.Signal(syscall.SIGCONT) }
