package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports of nodes lie below those that the system gives to outgoing connections: a
// killed node must find its ports free when it comes back. cluster/clustertest takes
// those from 20000 on, perhaps at the same time.
const (
	portMin = 10000
	portMax = 20000
)

// ports are the addresses handed out so far.
type ports map[string]bool

// picker hands out n addresses on loopback that nobody uses at present.
type picker func(n int) ([]string, error)

// pick takes n addresses on loopback that nobody uses at present, for TCP and UDP.
func (p ports) pick(n int) ([]string, error) {
	var list []string
	for range 100 * n {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(portMin+rand.IntN(portMax-portMin)))
		if p[addr] || checkFree(addr) != nil {
			continue
		}
		p[addr] = true
		if list = append(list, addr); len(list) == n {
			return list, nil
		}
	}
	return nil, fmt.Errorf("no %d free ports on 127.0.0.1 between %d and %d", n, portMin, portMax)
}

func checkFree(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	p, err := net.ListenPacket("udp", addr)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	return errors.Join(l.Close(), p.Close())
}
