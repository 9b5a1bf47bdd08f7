package client

import (
	"errors"
	"fmt"

	"github.com/coder/websocket"

	"github.com/stockmesh/stockmesh/protocol"
)

// A refusal by a node is returned as the *protocol.Error it sent, so that
// errors.Is(err, &protocol.Error{Code: protocol.CodeInsufficientStock}) works.
// The errors below are the client's own.
var (
	// ErrClosed: the client or subscription was closed. A write that was under
	// way may or may not have taken effect; send it again with its key.
	ErrClosed = errors.New("client: closed")
	// ErrUnreachable: no endpoint could be connected to. Nothing was sent.
	ErrUnreachable = errors.New("client: no node can be reached")
	// ErrNoToken: Config.Token failed, or returned what can't be a token.
	// Nothing was sent.
	ErrNoToken = errors.New("client: no token")
	// ErrBehind: the node had not reached the version asked for by AtLeast
	// within its wait. The items it has are returned beside this error.
	ErrBehind = errors.New("client: the node is still behind the version asked for")
)

// errLinkLost ends calls that belong to one connection only.
var errLinkLost = errors.New("client: connection lost")

// CloseError is the end of a connection by a code that forbids connecting
// again (40xx). The client is of no use after it, unless it has Config.Token:
// then 4001 ends it when the tokens of three connections in a row were refused.
type CloseError struct {
	Code     int
	Reason   string
	Endpoint string
}

func (e *CloseError) Error() string {
	return fmt.Sprintf("client: %s closed the connection for good: %d %s", e.Endpoint, e.Code, e.Reason)
}

// Is matches the protocol error that a close code stands for.
func (e *CloseError) Is(target error) bool {
	t, ok := target.(*protocol.Error)
	if !ok {
		return false
	}
	return t.Code == protocol.CodeUnauthorized && e.Code == protocol.CloseUnauthorized ||
		t.Code == protocol.CodeForbidden && e.Code == protocol.CloseForbidden
}

// ending is what a connection's end asks of the client.
type ending int

const (
	endAnywhere  ending = iota // connect again, the same endpoint is as good as any
	endForGood                 // 40xx
	endPause                   // 41xx
	endElsewhere               // 42xx
)

func endingOf(err error) ending {
	switch code := int(websocket.CloseStatus(err)); {
	case code >= 4000 && code < 4100:
		return endForGood
	case code >= 4100 && code < 4200:
		return endPause
	case code >= 4200 && code < 4300:
		return endElsewhere
	}
	return endAnywhere
}

func closeError(endpoint string, err error) error {
	var ce websocket.CloseError
	if !errors.As(err, &ce) {
		return err
	}
	return &CloseError{Code: int(ce.Code), Reason: ce.Reason, Endpoint: endpoint}
}
