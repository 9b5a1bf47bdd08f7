package edge

import (
	"math"
	"runtime/debug"
	"time"
)

// A storm of connections leaves garbage behind, of their handshakes and of those that
// went. Go collects it when as much again has been allocated, which idle connections
// never do, and keeps the memory from the system for minutes: half of what plain
// connections take and a third with TLS. So when a storm is over, it is collected at
// once.
const (
	stormMin  = 1000 // connections that came and went; less isn't worth a collection
	stormyMin = 50   // of them in a window, while it lasts
	windowMS  = 500  // the least length of a window

	// settleShare: after a collection comes none for so many times what it took.
	settleShare = 100
)

// settler finds out when a storm is over. It belongs to the loop that accepts.
type settler struct {
	seen      int64 // of Edge.churn, at the end of the last window
	storm     int64 // how many came and went in the windows of a storm
	lookAt    int64 // ms; the end of this window
	notBefore int64 // ms; of the next collection
}

// settle gives memory back to the system after a storm.
func (l *loop) settle() {
	if l.listener == nil || !l.settler.over(l.now, l.edge.churn.Load()) {
		return
	}
	l.settler.notBefore = math.MaxInt64
	l.edge.shaking.Go(func() {
		begun := time.Now()
		debug.FreeOSMemory()
		took := time.Since(begun).Milliseconds()
		l.inbox.do(func(l *loop) { l.settler.notBefore = l.now + settleShare*took })
	})
}

// stormy reports whether a storm goes on or has just ended, so that its end is not
// slept over.
func (l *loop) stormy() bool {
	return l.listener != nil && l.settler.stormy(l.now, l.edge.churn.Load())
}

func (s *settler) stormy(now, churn int64) bool {
	return now >= s.notBefore && (s.storm > 0 || churn-s.seen >= stormyMin)
}

// over reports, once, that a storm is over. It ends with a window in which hardly any
// came or went.
func (s *settler) over(now, churn int64) bool {
	if now < s.lookAt {
		return false
	}
	came := churn - s.seen
	s.seen, s.lookAt = churn, now+windowMS
	switch {
	case came >= stormyMin:
		s.storm += came
	case s.storm < stormMin:
		s.storm = 0
	case now >= s.notBefore:
		s.storm = 0
		return true
	}
	return false
}
