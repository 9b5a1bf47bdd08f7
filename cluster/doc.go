// Package cluster ties the storage engine (bus) and the stock state machine
// (ledger) into a region that takes commands and tells what changed.
//
// One goroutine, the owner, decides: it takes the commands that arrived while the
// previous commit was on its way, decides them all in memory, commits the whole
// round as one log message, applies it, tells the watchers and answers. Behind
// the log, rows are written to the stock bucket and snapshots to an archive.
package cluster
