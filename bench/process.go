package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// addresses is the one line that a child prints, once it serves.
type addresses struct {
	Public string `json:"public"`
	Admin  string `json:"admin,omitempty"`

	Metrics string `json:"metrics,omitempty"` // "" where there is no such port
}

// process is a child. Its standard input stays open as long as we live: a child
// whose input ends has lost its parent and ends too.
type process struct {
	addresses
	cmd   *exec.Cmd
	stdin io.Closer
	grace time.Duration // to stop, besides what all have
	ended chan struct{} // closed when it has ended
	err   error         // how, once it has
}

const (
	startTimeout = 60 * time.Second // five nodes on a busy machine wait for each other
	stopTimeout  = 20 * time.Second
)

// startProcess starts this binary as one of its children and waits until that
// serves. What the child has to tell people goes to stderr.
func startProcess(ctx context.Context, stderr *os.File, args ...string) (*process, error) {
	binary, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(binary, args...)
	cmd.Stderr = stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, stdin: stdin, ended: make(chan struct{})}
	err = p.awaitAddresses(ctx, stdout)
	// Not before: Wait closes the pipe that the addresses come through.
	go p.wait()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", args[0], errors.Join(err, p.stop()))
	}
	return p, nil
}

func (p *process) wait() {
	p.err = p.cmd.Wait()
	close(p.ended)
}

func (p *process) awaitAddresses(ctx context.Context, stdout io.Reader) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	answer := make(chan error, 1)
	go func() {
		line, err := bufio.NewReader(stdout).ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			err = errors.New("it ended before it served")
		}
		if err == nil {
			err = json.Unmarshal(line, &p.addresses)
		}
		answer <- err
	}()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		err := errors.Join(ctx.Err(), p.cmd.Process.Kill())
		<-answer // its pipe has ended with it
		return fmt.Errorf("did not start: %w", err)
	}
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop asks the child to end and, if it doesn't, ends it.
func (p *process) stop() error {
	defer p.stdin.Close()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		err = errors.Join(err, p.cmd.Process.Kill())
		<-p.ended
		return errors.Join(err, p.err)
	}
	late := time.AfterFunc(stopTimeout+p.grace, func() { _ = p.cmd.Process.Kill() }) // p.err tells
	defer late.Stop()
	<-p.ended
	if p.err != nil {
		return fmt.Errorf("process %d: %w", p.pid(), p.err)
	}
	return nil
}

// kill ends the child without any warning and waits until it is gone.
func (p *process) kill() error {
	defer p.stdin.Close()
	err := p.cmd.Process.Kill()
	<-p.ended
	if err != nil {
		return fmt.Errorf("process %d had ended by itself: %w", p.pid(), errors.Join(p.err, err))
	}
	return nil
}
