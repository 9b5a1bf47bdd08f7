package clustertest

import (
	"bytes"
	"strings"
	"sync"
)

// logBytesMax is how much of a node's log is kept, the newest.
const logBytesMax = 1 << 20

// nodeLog keeps the end of what a node said, over all its starts.
type nodeLog struct {
	mu      sync.Mutex
	buf     []byte
	decided int // how often the node became an owner
	wrong   faultFinder
}

// ownerLine is what a node says when it becomes the owner of a shard.
const ownerLine = "this node decides\""

// Write implements io.Writer.
func (l *nodeLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.decided += bytes.Count(b, []byte(ownerLine))
	l.wrong.write(b)
	l.buf = append(l.buf, b...)
	if over := len(l.buf) - logBytesMax; over > 0 {
		l.buf = append(l.buf[:0], l.buf[over:]...)
	}
	return len(b), nil
}

func (l *nodeLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.buf)
}

func (l *nodeLog) terms() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.decided
}

// faults are the data races and panics.
func (l *nodeLog) faults() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wrong.found()
}

// tail is the last n lines.
func (l *nodeLog) tail(n int) string {
	lines := strings.Split(strings.TrimRight(l.String(), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
