package main

import (
	"fmt"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress shows how far a phase is: a bar on a terminal, a line per phase
// elsewhere.
type progress struct {
	out      *os.File
	terminal bool
	bar      *progressbar.ProgressBar
}

func newProgress(out *os.File) *progress {
	return &progress{out: out, terminal: term.IsTerminal(int(out.Fd()))}
}

// phase begins a phase that takes about length.
func (p *progress) phase(name string, length time.Duration) {
	p.begin(name, length.Milliseconds())
	if !p.terminal {
		fmt.Fprintf(p.out, "%s, %v\n", name, length)
	}
}

// counted begins a phase of n things.
func (p *progress) counted(name string, n int) {
	p.begin(name, int64(n))
	if !p.terminal {
		fmt.Fprintln(p.out, name)
	}
}

func (p *progress) begin(name string, total int64) {
	p.close()
	if !p.terminal {
		return
	}
	p.bar = progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(p.out),
		progressbar.OptionSetDescription(name),
		progressbar.OptionSetPredictTime(false),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish())
}

// at says how much of the phase is done.
func (p *progress) at(n int64) {
	if p.bar != nil {
		_ = p.bar.Set64(min(n, p.bar.GetMax64()))
	}
}

func (p *progress) since(begin time.Time) { p.at(time.Since(begin).Milliseconds()) }

// note prints a line of its own.
func (p *progress) note(format string, args ...any) {
	p.close()
	fmt.Fprintf(p.out, format+"\n", args...)
}

func (p *progress) close() {
	if p.bar != nil {
		_ = p.bar.Finish()
		p.bar = nil
	}
}
