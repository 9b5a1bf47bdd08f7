package clustertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/stockmesh/stockmesh/node/server"
)

// body is what a node runs in, from one start to its end.
type body interface {
	kill() error // at once, and waits
	stop() error // in good order, and waits; an error where it ended badly
	pause() error
	resume() error
	ended() <-chan struct{}
	result() error // how it ended, once it has
}

// process is a node in a process of its own.
type process struct {
	cmd   *exec.Cmd
	alive io.Closer // its standard input: the process ends with it
	done  chan struct{}
	err   error
}

// startProcess starts a node; prefix is a command that runs it elsewhere and becomes it.
func startProcess(prefix []string, c server.Config, log io.Writer, env ...string) (*process, error) {
	config, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("this test binary: %w", err)
	}
	args := append(slices.Clone(prefix), exe)
	p := &process{cmd: exec.Command(args[0], args[1:]...), done: make(chan struct{})}
	p.cmd.Env = append(append(os.Environ(), env...), childEnv+"="+string(config))
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = ownGroup()
	if p.alive, err = p.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a node: %w", err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

func (p *process) ended() <-chan struct{} { return p.done }

func (p *process) result() error {
	<-p.done
	return p.err
}

func (p *process) kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.done
	return nil
}

func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return awaitEnd(p, exitWait)
}

func (p *process) pause() error { return pauseProcess(p.cmd.Process) }

func (p *process) resume() error { return resumeProcess(p.cmd.Process) }

func awaitEnd(b body, limit time.Duration) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-b.ended():
		return b.result()
	case <-timer.C:
		return fmt.Errorf("still runs %v after it was told to stop", limit)
	}
}

// routine is a node in this process.
type routine struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

func startRoutine(c server.Config, log io.Writer) *routine {
	ctx, cancel := context.WithCancel(context.Background())
	r := &routine{cancel: cancel, done: make(chan struct{})}
	go func() {
		r.err = runNode(ctx, c, log)
		close(r.done)
	}()
	return r
}

var errInside = errors.New("a node in a goroutine can be stopped only")

func (r *routine) kill() error            { return errInside }
func (r *routine) pause() error           { return errInside }
func (r *routine) resume() error          { return errInside }
func (r *routine) ended() <-chan struct{} { return r.done }

func (r *routine) result() error {
	<-r.done
	return r.err
}

func (r *routine) stop() error {
	r.cancel()
	return awaitEnd(r, exitWait)
}
