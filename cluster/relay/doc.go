// Package relay carries the commands of one node to the node that owns their
// shard, in order, and the answers back, over a messenger that may lose, repeat
// and delay what it is given. It is pure: no I/O, no clock, no goroutine and no
// lock. Callers serialize the calls on a Sender or a Receiver and pass the time.
//
// A Sender numbers its batches from 1 within a session. A Receiver takes them in
// that order only. Whenever either side is in doubt, by an answer that does not
// come, a gap or a change of owner, the sender begins a session that is larger
// and sends again whatever is unanswered; the owner knows by a command's key that
// it has been decided before.
//
// What it can't do, and the layout of both messages, is in DESIGN.md.
package relay
