// Package edge is the WebSocket side of a node: connections, sessions,
// subscriptions and bounded outboxes, over event loops on raw sockets.
//
// A loop owns its connections: their input, their subscriptions and their output
// are touched by its goroutine alone. Commits and answers reach it through an
// inbox. There is no goroutine per connection, and an idle connection has no
// buffers. What is not a WebSocket handshake is handed to net/http through
// Edge.HTTP, so one public port serves both.
package edge
