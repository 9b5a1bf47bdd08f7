package peer

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// process is a server under a keeper.
type process struct {
	name   string
	dir    string // its own, gone when it has stopped
	pid    int    // of the server
	log    string // file of what it says
	keeper *exec.Cmd
	stdin  io.Closer     // of the keeper: closed to end both
	ended  chan struct{} // closed when the keeper has ended
	err    error         // how, once it has
}

// makeDir makes a directory for a server. Whoever that runs as may pass through it.
func (c Config) makeDir(name string) (string, error) {
	dir, err := os.MkdirTemp(c.Dir, "stockmesh-bench-peer-"+name+"-")
	if err == nil {
		err = os.Chmod(dir, 0o711)
	}
	if err != nil {
		return dir, err
	}
	return filepath.Abs(dir)
}

// launch starts a server in its directory, which is removed when it stops. What it says
// goes to a file beside it.
func (c Config) launch(name, dir, as string, env []string, command ...string) (*process, error) {
	p := &process{name: name, dir: dir, log: filepath.Join(dir, "log"), ended: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the keeper has its own
	argv := append(slices.Clone(c.Keeper), append([]string{dir, as}, command...)...)
	p.keeper = exec.Command(argv[0], argv[1:]...)
	p.keeper.Stderr, p.keeper.Env = log, append(os.Environ(), env...)
	// It must outlive whatever ends us and our group.
	if err := apart(p.keeper, ""); err != nil {
		return nil, err
	}
	if p.stdin, err = p.keeper.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := p.keeper.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.keeper.Start(); err != nil {
		return nil, err
	}
	var s started
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &s)
	}
	p.pid = s.PID
	// Not before: Wait closes the pipe that the line comes through.
	go func() {
		p.err = errors.Join(p.keeper.Wait(), p.endOrphan())
		close(p.ended)
	}()
	if err != nil {
		err = p.explain(errors.New("it did not start"))
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

// await asks again and again until the server is ready.
func (p *process) await(ctx context.Context, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return p.explain(errors.New("it ended before it was ready"))
		case <-ctx.Done():
			return p.explain(fmt.Errorf("not ready within %v: %w", readyTimeout, err))
		case <-time.After(readyPoll):
		}
	}
}

// stop ends the server and removes its directory.
func (p *process) stop() error {
	_ = p.stdin.Close() // it may have ended
	<-p.ended
	return errors.Join(p.err, p.remove())
}

// killed is how a process has exited that was ended by a signal.
const killed = -1

// endOrphan ends the server whose keeper could not. Not later than that is known: its
// number may be another one's then.
func (p *process) endOrphan() error {
	if p.pid == 0 || p.keeper.ProcessState.ExitCode() != killed {
		return nil
	}
	return killServer(p.pid)
}

// remove removes the directory, from which a server that was killed may not have gone yet.
func (p *process) remove() error {
	for late := time.Now().Add(stopTimeout); ; {
		err := os.RemoveAll(p.dir)
		if err == nil || time.Now().After(late) {
			return err
		}
		<-time.After(readyPoll)
	}
}

const logTail = 2 << 10

// explain adds what the server has said last.
func (p *process) explain(err error) error {
	b, _ := os.ReadFile(p.log) // nothing to read is nothing to add
	return fmt.Errorf("%s: %w; its log ends with:\n%s", p.name, err, b[max(0, len(b)-logTail):])
}
