package gossip

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

const lookupWait = 3 * time.Second

func splitHostPort(addr string) (host string, port uint16, err error) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port of %s: %w", addr, err)
	}
	return host, uint16(n), nil
}

// lookup returns the addresses behind host:port. memberlist would do this by
// itself, but not stop when ctx ends, and it would try any TCP name server first.
func lookup(ctx context.Context, hostport string) ([]netip.AddrPort, error) {
	host, port, err := splitHostPort(hostport)
	if err != nil {
		return nil, err
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(ip.Unmap(), port)}, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err // a name of the hosts file may be found all the same
	}
	ctx, cancel := context.WithTimeout(ctx, lookupWait)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	// IPv4 first: whoever takes only one of them most likely can use that.
	slices.SortStableFunc(ips, func(a, b netip.Addr) int { return cmp.Compare(a.Unmap().BitLen(), b.Unmap().BitLen()) })
	out := make([]netip.AddrPort, len(ips))
	for i, ip := range ips {
		out[i] = netip.AddrPortFrom(ip.Unmap(), port)
	}
	return out, nil
}

// Resolve looks up host:port and returns the address that Open would tell the others.
func Resolve(ctx context.Context, hostport string) (string, error) {
	addrs, err := lookup(ctx, hostport)
	if err != nil {
		return "", err
	}
	return addrs[0].String(), nil
}

// listenAddr resolves Config.Listen; an invalid Addr stands for all interfaces.
func listenAddr(ctx context.Context, listen string) (netip.AddrPort, error) {
	host, port, err := splitHostPort(listen)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if host == "" {
		return netip.AddrPortFrom(netip.Addr{}, port), nil
	}
	addrs, err := lookup(ctx, listen)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if addrs[0].Addr().IsUnspecified() {
		return netip.AddrPortFrom(netip.Addr{}, port), nil
	}
	return addrs[0], nil
}

// advertised returns what to tell the others, given Config.Advertise and where
// the node listens.
func advertised(ctx context.Context, advertise string, at netip.AddrPort) (netip.AddrPort, error) {
	if advertise != "" {
		addrs, err := lookup(ctx, advertise)
		if err != nil {
			return netip.AddrPort{}, err
		}
		if addrs[0].Port() != 0 {
			return addrs[0], nil
		}
		return netip.AddrPortFrom(addrs[0].Addr(), at.Port()), nil
	}
	if at.Addr().IsValid() {
		return at, nil
	}
	ip, err := ownAddr()
	return netip.AddrPortFrom(ip, at.Port()), err
}

// ownAddr guesses the address by which others reach this machine: the one it
// uses towards the outside, otherwise the best of its interfaces.
func ownAddr() (netip.Addr, error) {
	if ip, ok := outwardAddr(); ok {
		return ip, nil
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, err
	}
	var ips []netip.Addr
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() {
			ips = append(ips, p.Addr().Unmap())
		}
	}
	return likeliest(ips)
}

func likeliest(ips []netip.Addr) (netip.Addr, error) {
	if len(ips) == 0 {
		return netip.Addr{}, errors.New("this machine has no address to advertise")
	}
	return slices.MinFunc(ips, func(a, b netip.Addr) int { return cmp.Compare(strangeness(a), strangeness(b)) }), nil
}

// strangeness orders addresses: private, public, loopback; IPv4 before IPv6.
func strangeness(ip netip.Addr) int {
	n := 2
	switch {
	case ip.IsPrivate():
		n = 0
	case ip.IsLoopback():
		n = 4
	}
	if ip.Is6() {
		n++
	}
	return n
}

// outwardAddr is the source address of the default route. memberlist runs the
// program ip to learn it, which an image without a shell does not have.
// Connecting a UDP socket sends nothing.
func outwardAddr() (netip.Addr, bool) {
	conn, err := net.Dial("udp4", "192.0.2.1:9") // TEST-NET-1: belongs to nobody
	if err != nil {
		return netip.Addr{}, false
	}
	defer conn.Close()
	ip := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
	return ip, ip.IsValid() && !ip.IsLoopback() && !ip.IsUnspecified()
}
