package main

import (
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress shows how far a phase is and what is going on: a bar with a line below it
// on a terminal; elsewhere a line per phase, and one now and then in long ones. It may
// be used by several goroutines.
type progress struct {
	out      *os.File
	terminal bool

	mu     sync.Mutex
	watch  func() string // what is going on, in a line; nil: nobody knows
	prefix string        // of each phase's name
	bar    *progressbar.ProgressBar
	detail string // the line below the bar
	long   bool   // the phase
	told   time.Time
}

func newProgress(out *os.File) *progress {
	return &progress{out: out, terminal: term.IsTerminal(int(out.Fd()))}
}

// Elsewhere than on a terminal, phases longer than longPhase tell what is going on
// every tellEvery.
const (
	longPhase  = 20 * time.Second
	tellEvery  = 10 * time.Second
	tellOnTerm = time.Second
)

// part names what the next phases belong to.
func (p *progress) part(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.prefix = name + ": "
}

// follow has watch tell what is going on from now on.
func (p *progress) follow(watch func() string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watch = watch
}

// phase begins a phase that takes about length.
func (p *progress) phase(name string, length time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begin(name, length.Milliseconds(), length > longPhase)
	if !p.terminal {
		fmt.Fprintf(p.out, "%s%s, %v\n", p.prefix, name, length)
	}
}

// counted begins a phase of n things.
func (p *progress) counted(name string, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begin(name, int64(n), false)
	if !p.terminal {
		fmt.Fprintln(p.out, p.prefix+name)
	}
}

func (p *progress) begin(name string, total int64, long bool) {
	p.end()
	p.long, p.told = long, time.Now()
	if p.terminal {
		p.bar = p.newBar(p.prefix+name, max(total, 1))
	}
}

func (p *progress) newBar(name string, total int64) *progressbar.ProgressBar {
	return progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(p.out),
		progressbar.OptionSetDescription(shortened(name, p.columns()-barColumns)),
		progressbar.OptionSetPredictTime(false),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionSetMaxDetailRow(1),
		progressbar.OptionClearOnFinish())
}

// barColumns is what the bar itself takes.
const barColumns = 60

func (p *progress) columns() int {
	width, _, err := term.GetSize(int(p.out.Fd()))
	if err != nil {
		return 80
	}
	return width
}

// shortened cuts a text that doesn't fit, but leaves something to read.
func shortened(text string, columns int) string {
	r := []rune(text)
	if columns = max(columns, 20); len(r) > columns {
		return string(r[:columns-1]) + "…"
	}
	return text
}

// at says how much of the phase is done.
func (p *progress) at(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		// The bar goes with the phase, which may take longer than was thought.
		_ = p.bar.Set64(min(n, p.bar.GetMax64()-1))
	}
	p.tell()
}

func (p *progress) since(begin time.Time) { p.at(time.Since(begin).Milliseconds()) }

// tell says what is going on, when it is time to.
func (p *progress) tell() {
	every := tellEvery
	if p.terminal {
		every = tellOnTerm
	}
	if p.watch == nil || !p.terminal && !p.long || time.Since(p.told) < every {
		return
	}
	p.told = time.Now()
	switch text := p.watch(); {
	case text == "":
	case p.bar != nil:
		p.detail = shortened(text, p.columns()-1)
		_ = p.bar.AddDetail(p.detail)
	case !p.terminal:
		fmt.Fprintln(p.out, "  "+text)
	}
}

// note prints a line of its own. The phase goes on.
func (p *progress) note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		p.erase()
	}
	fmt.Fprintf(p.out, format+"\n", args...)
	if p.bar != nil {
		_ = p.bar.RenderBlank()
		if p.detail != "" {
			_ = p.bar.AddDetail(p.detail)
		}
	}
}

func (p *progress) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end()
}

func (p *progress) end() {
	if p.bar == nil {
		return
	}
	p.erase()
	_ = p.bar.Exit()
	p.bar, p.detail = nil, ""
}

// erase leaves the terminal as it was before the bar and the line below it.
func (p *progress) erase() {
	fmt.Fprint(p.out, "\n\r\x1b[K\x1b[1A\r\x1b[K")
}
