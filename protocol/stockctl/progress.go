package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

// lineEvery is how often progress is printed where there is no terminal.
const lineEvery = 5 * time.Second

// progress shows how far something is: a bar on a terminal, now and then a line
// otherwise.
type progress struct {
	bar   *progressbar.ProgressBar
	w     io.Writer
	what  string
	total int

	mu   sync.Mutex
	done int
	last time.Time
}

func newProgress(w io.Writer, what string, total int) *progress {
	p := &progress{w: w, what: what, total: total, last: time.Now()}
	if isTerminal(w) {
		p.bar = progressbar.NewOptions(total, progressbar.OptionSetWriter(w), progressbar.OptionSetDescription(what),
			progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionSetPredictTime(true), progressbar.OptionFullWidth())
	}
	return p
}

func (p *progress) add(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += n
	if p.bar != nil {
		p.bar.Add(n)
	} else if time.Since(p.last) >= lineEvery {
		p.last = time.Now()
		p.line()
	}
}

func (p *progress) line() {
	if p.total > 0 {
		fmt.Fprintf(p.w, "%s: %d of %d\n", p.what, p.done, p.total)
	} else {
		fmt.Fprintf(p.w, "%s: %d\n", p.what, p.done)
	}
}

func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		p.bar.Finish()
		fmt.Fprintln(p.w)
		return
	}
	p.line()
}

// byteBar shows on a terminal how many bytes have passed. Elsewhere it shows nothing:
// what comes at the end says it.
type byteBar struct{ bar *progressbar.ProgressBar }

// newByteBar is given -1 where the total is not known.
func newByteBar(w io.Writer, what string, total int64) byteBar {
	return byteBar{progressbar.NewOptions64(total, progressbar.OptionSetWriter(w), progressbar.OptionSetVisibility(isTerminal(w)),
		progressbar.OptionSetDescription(what), progressbar.OptionShowBytes(true), progressbar.OptionShowCount(),
		progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())}
}

// Write implements io.Writer and never fails: what is copied must not end because it
// can't be shown.
func (b byteBar) Write(p []byte) (int, error) {
	b.bar.Add(len(p))
	return len(p), nil
}

func (b byteBar) end() { b.bar.Finish() }
