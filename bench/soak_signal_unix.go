//go:build unix

package main

import (
	"os"
	"syscall"
)

const canStop = true

// halt has a process stand still.
func halt(p *os.Process) error { return p.Signal(syscall.SIGSTOP) }

// resume lets it go on.
func resume(p *os.Process) error { return p.Signal(syscall.SIGCONT) }
