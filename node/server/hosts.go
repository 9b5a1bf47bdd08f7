package server

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
)

// A page of another site can have its name resolve to 127.0.0.1 (DNS rebinding) and so
// reach what serves this machine only, with an Origin that is its Host. But it can't
// choose the Host: that is the page's own name.

// localOnly reports whether clients of the public port are trusted for coming from this
// machine.
func (s *Server) localOnly() bool {
	host, _, err := net.SplitHostPort(s.config.Listen)
	return s.guard == nil && err == nil && isLoopback(host)
}

// names reports whether a request's Host is an address, localhost, or one of the names
// that --advertise and --origins give this node.
func (c *Config) names(hostPort string) bool {
	host := hostPort
	if h, _, err := net.SplitHostPort(hostPort); err == nil {
		host = h
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil || strings.EqualFold(host, "localhost") || host == "" {
		return true
	}
	for _, known := range append([]string{c.Advertise}, c.Origins...) {
		if u, err := url.Parse(known); err == nil && u.Hostname() != "" && strings.EqualFold(u.Hostname(), host) {
			return true
		}
	}
	return false
}

func unknownHost(host string) string {
	return fmt.Sprintf("Host %.100q is no name of this node, which serves its own machine only: use 127.0.0.1 or localhost, or name it in --advertise or --origins", host)
}
