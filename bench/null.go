package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// A null node says yes to every command and does nothing. It shows what the
// generator could measure at most, and that the checks notice a node that lies.
const childNull = "child-null"

// runNull serves until the parent ends or says so.
func runNull([]string) error {
	ctx, _, cancel := childContext()
	defer cancel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() {
		<-ctx.Done()
		l.Close()
	}()
	if err := announce(addresses{Public: l.Addr().String()}); err != nil {
		return err
	}
	return serveNull(l, nullItems)
}

// What a null node answers: as long as a node's answers are.
const (
	nullItems       = `{"items":[{"sku":"x","location":"main","available":1099511627735,"on_hand":1099511627735,"reserved":0,"version":"local:1234","updated_at":"2026-01-02T03:04:05.678Z"}]}`
	nullReservation = `{"reservation":{"id":"local.01JD3K6ZB1N0Q8V5X7C2M4T9RW","state":"%s","expires_at":"2026-01-02T03:14:05.678Z","lines":[{"sku":"bench-order-abcdefghij-0000000001","location":"main","quantity":1},{"sku":"bench-order-abcdefghij-0000004001","location":"main","quantity":1},{"sku":"bench-order-abcdefghij-0000008001","location":"main","quantity":1}]}}`
	nullSubscribed  = `{"items":0,"cursor":"local:1234"}`
)

// nullAnswers are those of the commands that are answered in their own way, by how
// their messages begin.
var nullAnswers = []struct{ begins, ok []byte }{
	{[]byte(`{"op":"reserve"`), fmt.Appendf(nil, nullReservation, "held")},
	{[]byte(`{"op":"confirm"`), fmt.Appendf(nil, nullReservation, "confirmed")},
	{[]byte(`{"op":"release"`), fmt.Appendf(nil, nullReservation, "released")},
	{[]byte(`{"op":"subscribe"`), []byte(nullSubscribed)},
	{[]byte(`{"op":"unsubscribe"`), []byte(`{}`)},
}

// nullServer speaks as much HTTP and WebSocket as bench itself does.
type nullServer struct {
	session func(net.Conn, *bufio.Reader) error // after the handshake and the hello
	batch   func(commands []byte) []byte        // any other request
}

// serveNull answers every command with ok, most of them with this one, until the
// listener is closed.
func serveNull(l net.Listener, ok string) error {
	s := &nullServer{
		session: func(nc net.Conn, r *bufio.Reader) error { return nullSession(nc, r, []byte(ok)) },
		batch:   func([]byte) []byte { return []byte(`{"results":[]}`) },
	}
	return s.serve(l)
}

func (s *nullServer) serve(l net.Listener) error {
	for {
		nc, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			defer nc.Close()
			_ = s.greet(nc) // ends with the client
		}()
	}
}

func (s *nullServer) greet(nc net.Conn) error {
	r := bufio.NewReaderSize(nc, 64<<10)
	req, err := http.ReadRequest(r)
	if err != nil {
		return err
	}
	if req.Method == http.MethodPost {
		return s.answerBatch(nc, req)
	}
	hello := appendServerFrame(nil, opText, []byte(`{"op":"hello","limits":{"in_flight":256}}`))
	if _, err := fmt.Fprintf(nc, "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: %s\r\n\r\n%s", handshakeAnswer, hello); err != nil {
		return err
	}
	return s.session(nc, r)
}

func (s *nullServer) answerBatch(nc net.Conn, req *http.Request) error {
	commands, err := io.ReadAll(req.Body)
	if err != nil {
		return err
	}
	body := s.batch(commands)
	_, err = fmt.Fprintf(nc, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
	return err
}

func nullSession(nc net.Conn, r *bufio.Reader, ok []byte) error {
	var out, message []byte
	for {
		payload, err := readMasked(r)
		if err != nil {
			return err
		}
		id, _ := scanReply(payload)
		message = appendOK(message[:0], id, nullAnswer(payload, ok))
		out = appendServerFrame(out, opText, message)
		if r.Buffered() == 0 {
			if _, err := nc.Write(out); err != nil {
				return err
			}
			out = out[:0]
		}
	}
}

func appendOK(b []byte, id uint64, ok []byte) []byte {
	b = strconv.AppendUint(append(b, `{"id":`...), id, 10)
	return append(append(append(b, `,"ok":`...), ok...), '}')
}

func nullAnswer(payload, ok []byte) []byte {
	for _, a := range nullAnswers {
		if bytes.HasPrefix(payload, a.begins) {
			return a.ok
		}
	}
	return named(ok, payload)
}

// named puts the SKU that a get asks for in the place of x.
func named(ok, payload []byte) []byte {
	_, after, asked := bytes.Cut(payload, []byte(`"skus":[`))
	sku, _, _ := bytes.Cut(after, []byte("]"))
	if !asked {
		return ok
	}
	return []byte(strings.ReplaceAll(string(ok), `"x"`, string(sku)))
}

// readMasked reads one client frame, as long as the reader's buffer at most, and
// returns its payload, good until the next call.
func readMasked(r *bufio.Reader) ([]byte, error) {
	head, err := r.Peek(2)
	if err != nil {
		return nil, err
	}
	at, n := 2, int(head[1]&^maskBit)
	if n == 126 {
		if head, err = r.Peek(4); err != nil {
			return nil, err
		}
		at, n = 4, int(binary.BigEndian.Uint16(head[2:]))
	}
	b, err := r.Peek(at + 4 + n)
	if err != nil {
		return nil, err
	}
	mask := [4]byte(b[at:])
	payload := b[at+4:]
	for i := range payload {
		payload[i] ^= mask[i&3]
	}
	_, err = r.Discard(len(b))
	return payload, err
}
