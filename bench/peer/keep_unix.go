//go:build unix

package peer

import (
	"errors"
	"os/exec"
	"syscall"
)

// apart has the command run in a process group of its own, which signals to ours don't
// reach, and as somebody else where that is asked for.
func apart(cmd *exec.Cmd, as string) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if as == "" {
		return nil
	}
	uid, gid, err := identity(as)
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: gid}
	return err
}

// killServer kills a server and what it has started, also one that is gone.
func killServer(pid int) error {
	if err := syscall.Kill(-pid, syscall.SIGKILL); !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}
