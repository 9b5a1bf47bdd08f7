package peer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// stopTimeout is how long a server may take to end in good order.
const stopTimeout = 10 * time.Second

// started is the one line that Keep prints.
type started struct {
	PID int `json:"pid"`
}

// Keep runs a server that knows nothing of us until our standard input ends, which it
// does with our parent: then it ends the server and removes its directory, so that
// nothing is left behind even when that was killed. Where we are killed ourselves, the
// system or our parent ends the server. The arguments are the directory,
// "UID:GID" to run the server as or "", and its command.
func Keep(args []string) error {
	if len(args) < 3 {
		return errors.New("want DIR, UID:GID and a command")
	}
	dir, as, command := args[0], args[1], args[2:]
	// It is the parent's to say when its children end. Caught rather than ignored: what
	// is ignored stays so in the server.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt, syscall.SIGTERM)
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, os.Stderr, os.Stderr
	if err := apart(cmd, as); err != nil {
		return err
	}
	endWithUs(cmd)
	// The system looks at the thread that has started it: that must stay as long as we do.
	runtime.LockOSThread()
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(started{cmd.Process.Pid}); err != nil {
		return errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	orphaned := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(orphaned)
	}()
	select {
	case err := <-ended:
		return fmt.Errorf("it ended by itself: %w", err)
	case <-orphaned:
	}
	return errors.Join(end(cmd, ended), os.RemoveAll(dir))
}

// end has a server end, in good order if it can.
func end(cmd *exec.Cmd, ended <-chan error) error {
	_ = cmd.Process.Signal(os.Interrupt) // it may just have ended
	select {
	case <-ended:
		return nil
	case <-time.After(stopTimeout):
	}
	err := cmd.Process.Kill()
	<-ended
	return err
}

// identity reads "UID:GID".
func identity(as string) (uid, gid uint32, err error) {
	u, g, _ := strings.Cut(as, ":")
	user, err := strconv.ParseUint(u, 10, 32)
	if err != nil {
		return 0, 0, err
	}
	group, err := strconv.ParseUint(g, 10, 32)
	return uint32(user), uint32(group), err
}
