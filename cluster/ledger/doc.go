// Package ledger is the stock state machine of one shard of one region: decide
// and apply, pure and deterministic. It reads no clock, does no I/O and starts no
// goroutine; the same rounds applied to the same state give the same state.
//
// A Round decides commands against the State and its own pending events. Once its
// encoded form is committed to the log, Apply turns it into state. Apply never
// decides anything again: a log holds what happened, not what was asked.
package ledger
