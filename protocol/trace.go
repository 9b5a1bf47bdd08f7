package protocol

import (
	"encoding/hex"
	"time"
)

// TraceContext names a place in a trace, as W3C Trace Context does. The zero value is
// none.
type TraceContext struct {
	Trace   [16]byte // all zero: there is no trace
	Span    [8]byte  // the parent of what follows
	Sampled bool     // somebody keeps this trace
}

// Valid reports whether there is a trace and a span in it.
func (t TraceContext) Valid() bool { return t.Trace != [16]byte{} && t.Span != [8]byte{} }

// The parts of a traceparent: version-trace-span-flags, in lower case hex.
const (
	traceparentBytes = 55
	traceAt          = 3
	spanAt           = 36
	flagsAt          = 53
	flagSampled      = 1
)

// ParseTraceparent reads a traceparent. One that is malformed is to be taken as missing,
// as W3C says: ok is false.
func ParseTraceparent(s string) (t TraceContext, ok bool) {
	if len(s) < traceparentBytes || s[2] != '-' || s[spanAt-1] != '-' || s[flagsAt-1] != '-' {
		return TraceContext{}, false
	}
	var version, flags [1]byte
	for _, part := range []struct {
		into []byte
		at   int
	}{{version[:], 0}, {t.Trace[:], traceAt}, {t.Span[:], spanAt}, {flags[:], flagsAt}} {
		if !lowerHex(part.into, s[part.at:part.at+2*len(part.into)]) {
			return TraceContext{}, false
		}
	}
	switch {
	case version[0] == 0xff, !t.Valid():
		return TraceContext{}, false
	case len(s) == traceparentBytes:
	case version[0] == 0, s[traceparentBytes] != '-': // later versions may go on after a dash
		return TraceContext{}, false
	}
	t.Sampled = flags[0]&flagSampled != 0
	return t, true
}

func lowerHex(into []byte, s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	_, err := hex.Decode(into, []byte(s))
	return err == nil
}

// Traceparent is the context as ParseTraceparent reads it.
func (t TraceContext) Traceparent() string {
	flags := "00"
	if t.Sampled {
		flags = "01"
	}
	return "00-" + hex.EncodeToString(t.Trace[:]) + "-" + hex.EncodeToString(t.Span[:]) + "-" + flags
}

// Trace is where the stages of a command that is followed write when it passed them.
// It belongs to whoever has the Call. A time that is zero was not passed on this node.
type Trace struct {
	Context  TraceContext // of the command itself
	Parent   [8]byte      // the caller's span; zero: none
	Handover [8]byte      // span under which another node goes on
	Via      string       // how it came: ws, http; "" from another node

	Received  time.Time // read from the socket, or from another node's message
	Submitted time.Time // given to the region
	Taken     time.Time // out of the owner's queue, into a round
	Committed time.Time // its round is on disk
	Returned  time.Time // answered by the node it was handed over to

	Shard    int    // of the round
	Sequence uint64 // of the round in the shard's log
	Commands int    // of the round

	Owner       string // node that answered where it was handed over
	OwnerRegion string // its region, where that is another one
}
