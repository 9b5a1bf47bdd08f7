package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
)

// The floor is what a fan-out costs that does nothing but write(2): a process
// that knows no WebSocket, holds the bytes of one message and of one burst, and
// writes them to every subscriber when its driver says so. A connection's first
// byte says what it is; a driver then sends both texts and from then on one byte
// per change: which of them to write.
const (
	floorSubscriber = 's'
	floorDriver     = 'd'
)

const floorTextMax = 4 << 20

// runFloor serves until its one driver hangs up or the parent ends.
func runFloor([]string) error {
	ctx, _, cancel := childContext()
	defer cancel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	forget := context.AfterFunc(ctx, func() { os.Exit(0) }) // nothing here is worth tidying
	defer forget()
	if err := announce(addresses{Public: l.Addr().String()}); err != nil {
		return err
	}
	return serveFloor(l)
}

func serveFloor(l net.Listener) error {
	var subscribers []*socket
	for {
		nc, err := l.Accept()
		if err != nil {
			return err
		}
		var kind [1]byte
		if _, err := io.ReadFull(nc, kind[:]); err != nil {
			return err
		}
		if kind[0] == floorDriver {
			return driveFloor(nc, subscribers)
		}
		s, err := adopt(nc.(*net.TCPConn))
		if err != nil {
			return err
		}
		subscribers = append(subscribers, s)
	}
}

func driveFloor(nc net.Conn, subscribers []*socket) error {
	var texts [2][]byte
	for i := range texts {
		var size uint32
		if err := binary.Read(nc, binary.BigEndian, &size); err != nil {
			return err
		}
		if size > floorTextMax {
			return fmt.Errorf("a text of %d bytes", size)
		}
		texts[i] = make([]byte, size)
		if _, err := io.ReadFull(nc, texts[i]); err != nil {
			return err
		}
	}
	var which [1]byte
	for {
		if _, err := io.ReadFull(nc, which[:]); err != nil {
			return ignoreEnd(err)
		}
		for _, s := range subscribers {
			if err := s.writeAll(texts[which[0]&1]); err != nil {
				return err
			}
		}
	}
}

func ignoreEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
