package edge

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
)

// proxyBytesMax bounds a PROXY header. The longest seen carry a client certificate's
// names, some hundred bytes.
const proxyBytesMax = 4 << 10

// proxyLineMax is the longest header of version 1, by its specification.
const proxyLineMax = 107

var (
	proxyLine      = []byte("PROXY ")
	proxySignature = []byte("\r\n\r\n\x00\r\nQUIT\n")
)

// verdict is what the first bytes of a connection are.
type verdict uint8

const (
	proxyNone verdict = iota // no PROXY header
	proxyPart                // the beginning of one, perhaps
	proxyDone                // a whole one
	proxyBad                 // a malformed one
)

// parseProxy reads a PROXY header of version 1 or 2 from the front of b, and how many
// bytes it takes. The client is not valid where the proxy speaks for itself or names
// no IP address.
func parseProxy(b []byte) (client netip.Addr, n int, v verdict) {
	switch {
	case bytes.HasPrefix(b, proxySignature):
		return parseProxyBinary(b)
	case bytes.HasPrefix(b, proxyLine):
		return parseProxyLine(b)
	case bytes.HasPrefix(proxySignature, b) || bytes.HasPrefix(proxyLine, b):
		return client, 0, proxyPart
	}
	return client, 0, proxyNone
}

// parseProxyLine reads version 1: "PROXY TCP4 192.0.2.1 10.0.0.1 56324 443\r\n".
func parseProxyLine(b []byte) (client netip.Addr, n int, v verdict) {
	line, _, ok := bytes.Cut(b[:min(len(b), proxyLineMax)], []byte("\r\n"))
	if !ok {
		if len(b) >= proxyLineMax {
			return client, 0, proxyBad
		}
		return client, 0, proxyPart
	}
	n = len(line) + len("\r\n")
	fields := strings.Split(string(line), " ")
	if fields[1] == "UNKNOWN" {
		return client, n, proxyDone // whatever follows
	}
	if len(fields) != 6 {
		return client, 0, proxyBad
	}
	client, err := netip.ParseAddr(fields[2])
	ipv4 := client.Is4()
	if err != nil || client.Zone() != "" || ipv4 != (fields[1] == "TCP4") || !ipv4 && fields[1] != "TCP6" {
		return netip.Addr{}, 0, proxyBad
	}
	return client.Unmap(), n, proxyDone
}

// The bytes of version 2 before its addresses: signature, version and command, family
// and transport, length of what follows.
const (
	proxyHeadBytes = 16
	proxyVersion   = 2
	proxyLocal     = 0 // command: the proxy speaks for itself, as in a health check
	proxyForwarded = 1
)

func parseProxyBinary(b []byte) (client netip.Addr, n int, v verdict) {
	if len(b) < proxyHeadBytes {
		return client, 0, proxyPart
	}
	version, command := b[12]>>4, b[12]&15
	n = proxyHeadBytes + int(binary.BigEndian.Uint16(b[14:]))
	if version != proxyVersion || command > proxyForwarded || n > proxyBytesMax {
		return client, 0, proxyBad
	}
	if len(b) < n {
		return client, 0, proxyPart
	}
	addresses := b[proxyHeadBytes:n] // and extensions, which nobody asks for
	if command == proxyLocal {
		return client, n, proxyDone
	}
	const tcp4, tcp6 = 0x11, 0x21
	switch family := b[13]; {
	case family == tcp4 && len(addresses) >= 12:
		client = netip.AddrFrom4([4]byte(addresses))
	case family == tcp6 && len(addresses) >= 36:
		client = netip.AddrFrom16([16]byte(addresses)).Unmap()
	case family == tcp4 || family == tcp6 || family>>4 > 3 || family&15 > 2:
		return client, 0, proxyBad
	}
	return client, n, proxyDone
}

// forwardedFor finds the client behind trusted proxies: each appends whom it was
// called by, so the list is read from its end, as far as proxies can be believed.
func forwardedFor(peer netip.Addr, list string, trusted func(netip.Addr) bool) netip.Addr {
	for more := list != ""; more && trusted(peer); {
		var last string
		if i := strings.LastIndexByte(list, ','); i >= 0 {
			list, last = list[:i], list[i+1:]
		} else {
			last, more = list, false
		}
		ip, ok := parseForwarded(strings.TrimSpace(last))
		if !ok {
			return peer // nothing before it can be believed
		}
		peer = ip
	}
	return peer
}

// parseForwarded takes the forms in use: an address, in brackets or not, with a port
// or without.
func parseForwarded(s string) (netip.Addr, bool) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().WithZone("").Unmap(), true
	}
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		s = s[1 : len(s)-1]
	}
	ip, err := netip.ParseAddr(s)
	return ip.WithZone("").Unmap(), err == nil
}

// trusts reports whether an address is one of a trusted proxy. It is not counted by
// itself, as many clients come from it.
func (e *Edge) trusts(ip netip.Addr) bool {
	for _, p := range e.config.TrustedProxies {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// proxied takes the first bytes from a trusted proxy, which may be a PROXY header.
func (l *loop) proxied(c *conn, b []byte) {
	in := append(c.kept(), b...)
	c.keep(in)
	client, n, v := parseProxy(in)
	switch v {
	case proxyPart:
		return
	case proxyBad:
		l.edge.metrics.rejected.WithLabelValues("proxy").Inc()
		l.refuse(c, 400, "malformed PROXY header", 0)
		return
	}
	rest := in[n:]
	c.keep(nil)
	if client.IsValid() && !l.comesFrom(c, client) {
		return
	}
	c.state = l.firstState()
	if len(rest) > 0 {
		l.input(c, rest)
	}
}

// comesFrom gives a connection its client's address, unless that has too many.
func (l *loop) comesFrom(c *conn, ip netip.Addr) bool {
	if !l.edge.admitAddress(ip) {
		l.edge.metrics.rejected.WithLabelValues("connections").Inc()
		l.refuse(c, 429, tooMany, 1)
		return false
	}
	l.edge.dismissAddress(c.ip())
	c.address = ip.As16()
	return true
}

// firstState is where a connection begins that is no proxy's.
func (l *loop) firstState() state {
	if l.config.TLS != nil {
		return stateSilent
	}
	return stateHead
}

// refuse says why where that needs no TLS handshake first: there may be no room for
// one.
func (l *loop) refuse(c *conn, status int, message string, retryAfter int) {
	if l.config.TLS != nil && c.tls() == nil {
		l.drop(c)
		return
	}
	l.refuseHTTP(c, status, message, retryAfter)
}

// beginsProxied reports whether a request's head is a PROXY header instead.
func beginsProxied(head []byte) bool {
	return bytes.HasPrefix(head, proxySignature) || bytes.HasPrefix(head, proxyLine)
}
