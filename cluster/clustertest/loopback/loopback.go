// Package loopback gives tests addresses to listen at that they must know beforehand.
package loopback

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// Ports of nodes lie below those that the system gives to outgoing connections: one that
// was free a moment ago must still be when the node listens, and again when it comes back
// after a kill. bench takes those below 20000, perhaps at the same time.
const (
	portMin = 20000
	portMax = 32000
)

// Addresses takes n addresses on loopback that nobody uses at present, for TCP and UDP.
func Addresses(t testing.TB, n int) []string {
	t.Helper()
	taken := make(map[string]bool)
	list := make([]string, 0, n)
	for tries := 0; len(list) < n; tries++ {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(portMin+rand.IntN(portMax-portMin)))
		if taken[addr] {
			continue
		}
		if err := free(addr); err != nil {
			if tries > 100*n {
				t.Fatalf("no free ports: %v", err)
			}
			continue
		}
		taken[addr] = true
		list = append(list, addr)
	}
	return list
}

func free(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("TCP: %w", err)
	}
	p, err := net.ListenPacket("udp", addr)
	if err != nil {
		return errors.Join(fmt.Errorf("UDP: %w", err), l.Close())
	}
	return errors.Join(l.Close(), p.Close())
}
