package main

// scanReservation finds the id and the state of the reservation that a reply tells of;
// both are nil where there is none. They are as they stand, escapes and all.
func scanReservation(reply []byte) (id, state []byte) {
	s := scanner{b: reply}
	if !s.enter("ok") || !s.enter("reservation") {
		return nil, nil
	}
	id, _ = s.textOf("id")
	state, _ = s.textOf("state")
	return id, state
}

// enter goes on to the value of a name in the object that comes next.
func (s *scanner) enter(name string) bool {
	if !s.take('{') {
		return false
	}
	for !s.take('}') {
		has, ok := s.text()
		if !ok || !s.take(':') {
			return false
		}
		if string(has) == name {
			return true
		}
		if !s.skip() || !s.take(',') && !s.peek('}') {
			return false
		}
	}
	return false
}

// textOf reads a string of the object that comes next, without taking anything.
func (s scanner) textOf(name string) ([]byte, bool) {
	if !s.enter(name) {
		return nil, false
	}
	return s.text()
}
