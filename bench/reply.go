package main

import (
	"slices"

	"github.com/stockmesh/stockmesh/protocol"
)

// outcome is what a node's message says.
type outcome byte

const (
	malformed outcome = iota
	push              // no reply: it has neither ok nor error
	acked
	refused
)

// scanReply finds the id and the outcome of a node's message. It looks no further
// than it must, so it finds no fault behind the outcome; an id that is no natural
// number reads as 0.
func scanReply(b []byte) (id uint64, result outcome) {
	s := scanner{b: b}
	result = push
	numbered := false
	if !s.take('{') {
		return 0, malformed
	}
	for !s.take('}') {
		name, ok := s.text()
		if !ok || !s.take(':') {
			return 0, malformed
		}
		switch string(name) {
		case "id":
			id, numbered = s.number(), true
		case "ok":
			result = acked
		case "error":
			result = refused
		}
		if numbered && result != push {
			return id, result
		}
		if !s.skip() || !s.take(',') && !s.peek('}') {
			return 0, malformed
		}
	}
	return id, result
}

// readError returns what a refusal says; a message that can't be read says so itself.
func readError(message []byte) *protocol.Error {
	var reply struct {
		Error protocol.Error `json:"error"`
	}
	if err := protocol.UnmarshalJSON(message, &reply); err != nil {
		reply.Error.Message = err.Error()
	}
	return &reply.Error
}

// lacksRights reports whether a region has refused what others may have stock for.
func lacksRights(e *protocol.Error) bool {
	return e.Code == protocol.CodeInsufficientStock && e.Details != nil &&
		slices.ContainsFunc(e.Details.Lines, func(line protocol.Shortage) bool { return line.Elsewhere > 0 })
}

// scanner walks over JSON that it trusts to be mostly right: it never reads
// beyond the end and accepts some texts that are no JSON.
type scanner struct {
	b  []byte
	at int
}

func (s *scanner) space() {
	for s.at < len(s.b) {
		switch s.b[s.at] {
		case ' ', '\t', '\r', '\n':
			s.at++
		default:
			return
		}
	}
}

func (s *scanner) peek(c byte) bool {
	s.space()
	return s.at < len(s.b) && s.b[s.at] == c
}

func (s *scanner) take(c byte) bool {
	if !s.peek(c) {
		return false
	}
	s.at++
	return true
}

// text takes a string and returns it as it stands, escapes and all.
func (s *scanner) text() ([]byte, bool) {
	if !s.take('"') {
		return nil, false
	}
	for start := s.at; s.at < len(s.b); s.at++ {
		switch s.b[s.at] {
		case '\\':
			s.at++
		case '"':
			s.at++
			return s.b[start : s.at-1], true
		}
	}
	return nil, false
}

// number reads a natural number without taking it.
func (s *scanner) number() (n uint64) {
	s.space()
	for _, c := range s.b[s.at:] {
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + uint64(c-'0')
	}
	return n
}

// skip takes one value: to the comma or bracket that ends it.
func (s *scanner) skip() bool {
	depth := 0
	for s.space(); s.at < len(s.b); s.at++ {
		switch s.b[s.at] {
		case '"':
			if _, ok := s.text(); !ok {
				return false
			}
			s.at-- // the loop steps over the closing quote
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return true
			}
			depth--
		case ',':
			if depth == 0 {
				return true
			}
		}
	}
	return false
}
