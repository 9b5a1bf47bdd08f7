// Package server assembles a node: the cluster behind, the edge and the HTTP
// interface on the public port, health, metrics and profiles on the admin port.
// It owns the order in which they start and stop.
package server
