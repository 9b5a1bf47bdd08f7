package peer

import (
	"os/exec"
	"syscall"
)

// endWithUs has the system kill a command, which has to be set apart, when we end without
// having ended it.
func endWithUs(cmd *exec.Cmd) { cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL }
