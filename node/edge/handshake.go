package edge

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/gobwas/ws"
	"github.com/stockmesh/stockmesh/protocol"
)

const (
	headBytesMax = 8 << 10
	wsPath       = "/v1/ws"
)

var headEnd = []byte("\r\n\r\n")

// longQuery is the start of a request that may well be larger than a handshake's.
var longQuery = regexp.MustCompile("^[A-Z]{3,7} /v1/")

// head collects a request's head and then decides whose the connection is.
func (l *loop) head(c *conn, b []byte) {
	// Only the part that is new, and the three bytes before it, can hold the end.
	from := max(0, len(c.kept())-len(headEnd)+1)
	in := append(c.kept(), b...)
	c.keep(in)
	i := bytes.Index(in[from:], headEnd)
	end := from + i + len(headEnd)
	if i < 0 {
		end = len(in)
	}
	if end > headBytesMax {
		if longQuery.Match(in) && !bytes.HasPrefix(in, []byte(http.MethodGet+" "+wsPath)) {
			l.handOver(c) // net/http's to judge
			return
		}
		l.edge.metrics.rejected.WithLabelValues("head").Inc()
		l.refuseHTTP(c, http.StatusBadRequest, "the request's head is larger than 8 KiB", 0)
		return
	}
	if i < 0 {
		return
	}
	if beginsProxied(in) {
		l.edge.metrics.rejected.WithLabelValues("proxy").Inc()
		l.refuseHTTP(c, http.StatusBadRequest, "a PROXY header, and not from a trusted proxy", 0)
		return
	}
	if !isUpgrade(in[:end]) {
		l.handOver(c)
		return
	}
	head, rest := in[:end], in[end:]
	c.keep(nil)
	if l.upgrade(c, head); len(rest) > 0 && (c.state == stateOpen || c.state == stateChecking) {
		l.input(c, rest)
	}
}

// isUpgrade tells a WebSocket handshake from every other request; what is wrong
// with the handshake is found out later.
func isUpgrade(head []byte) bool {
	line, headers, _ := bytes.Cut(head, []byte("\r\n"))
	parts := bytes.Split(line, []byte(" "))
	if len(parts) != 3 || string(parts[0]) != http.MethodGet {
		return false
	}
	path, _, _ := bytes.Cut(parts[1], []byte("?"))
	return string(path) == wsPath && headerHas(headers, "upgrade", "websocket")
}

func headerHas(headers []byte, name, token string) bool {
	for line := range bytes.SplitSeq(headers, []byte("\r\n")) {
		n, v, ok := bytes.Cut(line, []byte(":"))
		if ok && strings.EqualFold(string(bytes.TrimSpace(n)), name) && strings.Contains(strings.ToLower(string(v)), token) {
			return true
		}
	}
	return false
}

// handOver gives the connection, with the bytes already read, to net/http.
func (l *loop) handOver(c *conn) {
	prefix, ip := c.kept(), c.ip()
	c.keep(nil)
	if err := l.poller.Remove(c.sock); err != nil {
		l.drop(c)
		return
	}
	nc, err := c.sock.NetConn()
	l.slots[c.slot] = nil
	l.free = append(l.free, c.slot)
	if err != nil {
		l.edge.dismiss(ip)
		l.logger.Warn("handing a connection to HTTP", "error", err)
		return
	}
	if s := c.tls(); s != nil {
		nc, err = s.handOver(nc)
		if err != nil {
			l.edge.dismiss(ip)
			nc.Close()
			return
		}
	}
	if !l.edge.http.give(&replayConn{Conn: nc, prefix: prefix, remote: remoteAddr(nc, ip), closed: func() { l.edge.dismiss(ip) }}) {
		l.edge.dismiss(ip)
		l.edge.metrics.rejected.WithLabelValues("http").Inc()
		nc.Close()
	}
}

// memory is the connection that the upgrader sees: the head as read, and room for
// the answer. The upgrader blocks on sockets, and drops what follows the head.
type memory struct {
	bytes.Reader
	answer bytes.Buffer
}

func (m *memory) Write(b []byte) (int, error) { return m.answer.Write(b) }

func (l *loop) upgrade(c *conn, head []byte) {
	m := &memory{}
	m.Reset(head)
	var target []byte
	var host, origin, forwarded string
	var authorization []string
	offered, known := false, false
	u := ws.Upgrader{
		ReadBufferSize: headBytesMax + 512,
		OnRequest:      func(uri []byte) error { target = bytes.Clone(uri); return nil },
		OnHost:         func(h []byte) error { host = string(h); return nil },
		OnHeader: func(key, value []byte) error {
			switch {
			case strings.EqualFold(string(key), "Origin"):
				origin = string(value)
			case strings.EqualFold(string(key), "X-Forwarded-For"):
				forwarded += "," + string(value)
			case strings.EqualFold(string(key), "Authorization"):
				authorization = append(authorization, string(value))
			}
			return nil
		},
		ProtocolCustom: func(names []byte) (name string, ok bool) {
			offered = true
			name, known = chooseProtocol(names)
			return name, true // the header's next line may hold a known one
		},
		Negotiate: negotiateDeflate(),
		OnBeforeUpgrade: func() (ws.HandshakeHeader, error) {
			if offered && !known {
				return nil, errUnknownProtocol
			}
			return nil, l.allowed(host, origin, target)
		},
	}
	agreed, err := u.Upgrade(m)
	if err != nil {
		l.refuseUpgrade(c, err)
		return
	}
	if client := forwardedFor(c.ip(), strings.TrimPrefix(forwarded, ","), l.edge.trusts); client != c.ip() && !l.comesFrom(c, client) {
		return
	}
	c.codec, _ = protocol.CodecOf(agreed.Protocol) // none is JSON
	c.deflate = len(agreed.Extensions) > 0
	l.arrive(c, m.answer.Bytes(), authorization)
}

// chooseProtocol picks the first known subprotocol: the client offers them in the
// order of its liking.
func chooseProtocol(offered []byte) (string, bool) {
	for name := range strings.SplitSeq(string(offered), ",") {
		if codec, ok := protocol.CodecOf(strings.TrimSpace(name)); ok {
			return codec.Subprotocol(), true
		}
	}
	return "", false
}

// allowed refuses pages of other sites, and tokens where they don't belong.
func (l *loop) allowed(host, origin string, target []byte) error {
	if l.edge.draining.Load() {
		return reject(http.StatusServiceUnavailable, "the node is draining")
	}
	if l.config.Hosts != nil && !l.config.Hosts(host) {
		return reject(http.StatusForbidden, fmt.Sprintf("host %.100q is no name of this node, which serves its own machine only", host))
	}
	if origin != "" && !originAllowed(origin, host, l.config.Origins) {
		return reject(http.StatusForbidden, fmt.Sprintf("origin %.200q is not allowed", origin))
	}
	if tokenInURL(target) {
		return errTokenInURL
	}
	return nil
}

var errUnknownProtocol = reject(http.StatusBadRequest, "of the subprotocols only "+protocol.SubprotocolJSON+" and "+protocol.SubprotocolCBOR+" are known")

func reject(status int, reason string) error {
	return ws.RejectConnectionError(ws.RejectionStatus(status), ws.RejectionReason(reason))
}

func originAllowed(origin, host string, origins []string) bool {
	if u, err := url.Parse(origin); err == nil && u.Host != "" && strings.EqualFold(u.Host, host) {
		return true
	}
	for _, o := range origins {
		if strings.EqualFold(o, origin) {
			return true
		}
	}
	return false
}

func (l *loop) refuseUpgrade(c *conn, err error) {
	status, retry := http.StatusBadRequest, 0
	if r, ok := err.(interface{ StatusCode() int }); ok && statusText[r.StatusCode()] != "" {
		status = r.StatusCode()
	}
	if status == http.StatusServiceUnavailable {
		retry = 1
	}
	l.edge.metrics.rejected.WithLabelValues("handshake").Inc()
	l.refuseHTTP(c, status, err.Error(), retry)
}

// open makes the connection a session: its first message is the hello.
func (l *loop) open(c *conn) {
	c.state = stateOpen
	c.session = l.edge.sessions.Add(1)
	c.heardAt, c.pingAt = l.moment(), l.firstPing(c)
	l.edge.metrics.open.Add(1)
	l.edge.metrics.handshakes.Inc()
	l.gauged.handshake.observe((l.now - c.bornAt) * 1000)
	hello := protocol.Hello{
		Op: "hello", Session: sessionName(c.session), Node: l.config.Node, Region: l.config.Region,
		Protocol: protocol.ProtocolVersion, HeartbeatMS: l.config.Heartbeat.Milliseconds(),
		Endpoints: slices.Concat(l.config.Endpoints, l.config.Others()),
		Limits: protocol.Limits{
			MessageBytes: protocol.MessageBytesMax, Subscriptions: protocol.SelectorsMax, InFlight: protocol.InFlightMax,
		},
	}
	l.say(c, func(b []byte) []byte { return c.codec.AppendMessage(b, &hello) })
	l.mark(c)
}

func sessionName(n uint64) string {
	return fmt.Sprintf("%x", binary.BigEndian.AppendUint64(nil, n))
}
