// Package client talks to a stockmesh from Go: commands and subscriptions over
// one WebSocket to whichever node of a list can be reached.
//
// A Client survives the node it talks to. When a connection ends it connects to
// another endpoint (those configured and those the nodes name), resends what was
// not answered with the same idempotency key and the region it was first sent
// to, and carries its subscriptions on from their cursor. What a caller sees is
// its own context: a call ends with an answer, with the context, or with Close.
//
// Config.Token is asked for a token whenever one is needed; it is renewed within
// the connection before it ends, without a command noticing.
//
// Many goroutines may use one Client. Commands that queue up while a message is
// being written leave together in the next one.
//
// It does not cache stock, does not queue on disk, and decides nothing: every
// answer is a node's.
package client
