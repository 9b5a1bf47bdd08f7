package gossip

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"
)

// A free port of TCP may be taken for UDP.
const freePortTries = 10

// transport is memberlist's own one, but its outgoing connections end with ctx:
// otherwise goroutines of memberlist would go on for seconds after a Close.
type transport struct {
	*memberlist.NetTransport
	ctx context.Context
}

// listen opens the sockets and returns where.
func listen(ctx context.Context, at netip.AddrPort, logger *log.Logger) (*transport, netip.AddrPort, error) {
	c := &memberlist.NetTransportConfig{BindAddrs: []string{""}, BindPort: int(at.Port()), Logger: logger}
	if at.Addr().IsValid() {
		c.BindAddrs[0] = at.Addr().String()
	}
	nt, err := memberlist.NewNetTransport(c)
	for try := 1; err != nil && at.Port() == 0 && try < freePortTries; try++ {
		nt, err = memberlist.NewNetTransport(c)
	}
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	return &transport{nt, ctx}, netip.AddrPortFrom(at.Addr(), uint16(nt.GetAutoBindPort())), nil
}

// DialTimeout implements memberlist.Transport.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: timeout}
	conn, err := d.DialContext(t.ctx, "tcp", a.Addr)
	if err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	return &dialed{conn, context.AfterFunc(t.ctx, func() { _ = conn.Close() })}, nil
}

type dialed struct {
	net.Conn
	forget func() bool
}

func (d *dialed) Close() error {
	d.forget()
	return d.Conn.Close()
}
