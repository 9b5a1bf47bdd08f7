package api

import (
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// verdict is what is left of a stream after a turn.
type verdict uint8

const (
	rests verdict = iota // until it is put again
	hasMore
	isOver
)

// worker is one goroutine of a crew, with what a turn needs. So streams that have
// nothing to write hold no buffers.
type worker struct {
	crew  *crew
	timer *time.Timer // runs relieve when a write takes too long

	buf   []byte
	ids   []protocol.ItemID
	items []protocol.Item

	// Guarded by crew.mu.
	stream  *stream
	fills   bool // the stream's snapshot, or that of the last one
	stuck   bool
	leaving bool // the stream's connection is being closed
}

func (w *worker) run() {
	defer w.timer.Stop()
	for left := rests; ; {
		s, beat := w.next(left)
		if s == nil {
			return
		}
		if left = s.turn(w, beat); left == isOver {
			w.dismiss(s)
		}
	}
}

// next gives back the stream that had its turn, and takes the first in the queue; nil
// once the worker isn't needed any more.
func (w *worker) next(left verdict) (s *stream, beat bool) {
	c := w.crew
	c.mu.Lock()
	defer c.mu.Unlock()
	w.giveBack(left)
	for c.free <= c.size {
		if s = c.pop(!w.fills); s != nil || c.closed {
			break
		}
		c.idle++
		c.ready.Wait()
	}
	if s == nil {
		c.free--
		return nil, false
	}
	beat, w.fills = s.berth.beat, s.berth.fills
	s.berth.place, s.berth.again, s.berth.beat = placeTaken, false, false
	w.stream = s
	return s, beat
}

func (w *worker) giveBack(left verdict) {
	c, s := w.crew, w.stream
	if s == nil {
		return
	}
	switch {
	case w.stuck:
		c.stuck--
		c.free++
	case w.fills:
		c.filling--
	}
	w.stream, w.stuck, w.leaving = nil, false, false
	if left == isOver {
		s.berth.place = placeOutside
		return
	}
	s.berth.place, s.berth.fills = placeIdle, s.fill != nil
	if left == hasMore || s.berth.again {
		c.push(s)
	}
}

// dismiss takes a stream that is over to the door.
func (w *worker) dismiss(s *stream) {
	c := w.crew
	c.mu.Lock()
	w.leaving = true
	delete(c.awaiting, s)
	if delete(c.open, s); len(c.open) == 0 {
		c.beats.Stop()
	}
	c.mu.Unlock()
	w.timer.Reset(patience)
	defer w.timer.Stop()
	s.leave()
}

// write writes what is in the worker's buffer.
func (w *worker) write(s *stream) error {
	if len(w.buf) == 0 {
		return nil
	}
	if err := s.writeBy(time.Now().Add(s.api.cfg.WriteTimeout)); err != nil {
		return err
	}
	w.timer.Reset(patience)
	defer w.timer.Stop()
	_, err := s.conn.Write(w.buf)
	return err
}

// relieve replaces a worker that is stuck in a write.
func (w *worker) relieve() {
	c := w.crew
	c.mu.Lock()
	s := w.stream
	if s == nil || w.stuck {
		c.mu.Unlock()
		return // it was only just over
	}
	w.stuck = true
	c.stuck++
	c.free--
	if w.fills {
		c.filling--
	}
	// All that is written on closing is TLS's goodbye, for which it would take 5 s.
	cut := w.leaving || c.stuck > c.stuckMax
	if c.changes.first != nil || c.fills.first != nil {
		c.staff()
	}
	c.mu.Unlock()
	if cut {
		_ = s.conn.SetWriteDeadline(time.Now())
	}
}
