package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"syscall"
)

// answerBytesMax bounds what is read of a node's answer.
const answerBytesMax = 1 << 20

// errLate is in the error of a node that was waited for in vain.
var errLate = errors.New("did not answer in time")

// neighbour asks the node on this machine.
type neighbour struct {
	base string // URL of a port
	http *http.Client
}

// newNeighbour talks to what listens at addr, as the option says it.
func newNeighbour(option, addr string) (*neighbour, error) {
	at, err := dialled(addr)
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", option, addr, err)
	}
	// It is on this machine: no proxy is on the way.
	return &neighbour{"http://" + at, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}, nil
}

// dialled is where to dial what listens at addr.
func dialled(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", errors.New("want host:port")
	}
	if port == "0" {
		return "", errors.New("its port is known to the node alone: give it a fixed one")
	}
	switch ip, _ := netip.ParseAddr(host); {
	case host == "", ip.IsUnspecified() && ip.Is4():
		host = "127.0.0.1"
	case ip.IsUnspecified():
		host = "::1"
	}
	return net.JoinHostPort(host, port), nil
}

// ask sends a request and reads the answer, JSON, into v.
func (n *neighbour) ask(ctx context.Context, method, path string, v any) (status int, err error) {
	request, err := http.NewRequestWithContext(ctx, method, n.base+path, nil)
	if err != nil {
		return 0, err
	}
	response, err := n.http.Do(request)
	if err != nil {
		return 0, n.explain(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, answerBytesMax))
	if err != nil {
		return 0, n.explain(fmt.Errorf("%s%s: %w", n.base, path, err))
	}
	if err := json.Unmarshal(body, v); err != nil {
		return 0, fmt.Errorf("%s answers %d, and nothing that a node says", n.base, response.StatusCode)
	}
	return response.StatusCode, nil
}

func (n *neighbour) explain(err error) error {
	// Dialling may see the time end a moment before the context does.
	late, ok := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no node listens at %s", n.base)
	case ok && late.Timeout():
		return fmt.Errorf("%s %w", n.base, errLate)
	}
	return err
}
