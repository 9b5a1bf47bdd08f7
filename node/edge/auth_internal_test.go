package edge

import (
	"context"
	"crypto/x509"
	"strings"
	"testing"

	"github.com/stockmesh/stockmesh/protocol"
)

// nobodys is a guard that knows nobody.
type nobodys struct{}

func (nobodys) Token(context.Context, string) (*protocol.Caller, *protocol.Error) {
	return nil, protocol.NewError(protocol.CodeUnauthorized, "not known")
}
func (nobodys) Certificate(*x509.Certificate) *protocol.Caller { return nil }
func (nobodys) Valid(*protocol.Caller) bool                    { return true }

func TestTooManyTokensAreChecked(t *testing.T) {
	l := newBench(t)
	l.config.Guard, l.anybody = nobodys{}, nil
	l.edge.checks.Store(checksMax)
	_, out := l.feed(stateHead, []byte(head+"Authorization: Bearer x\r\n\r\n"))
	if !strings.HasPrefix(out, "HTTP/1.1 503 ") || !strings.Contains(out, "Retry-After: 1\r\n") {
		t.Errorf("got %s", out)
	}
	_, out = l.feed(stateHead, []byte(head+"\r\n"+masked(0x81, `[{"op":"auth","id":1,"token":"x"},{"op":"ping","id":2}]`)))
	if !strings.Contains(out, `{"id":1,"error":{"code":"overloaded"`) || !strings.Contains(out, `{"id":2,"ok":{}}`) {
		t.Errorf("got %s", out)
	}
	if n := l.edge.checks.Load(); n != checksMax {
		t.Errorf("%d are counted", n)
	}
}

func TestTokenInURL(t *testing.T) {
	for target, want := range map[string]bool{
		"/v1/ws": false, "/v1/ws?": false, "/token": false, "/v1/ws?x=token": false, "/v1/ws?tokens=1": false,
		"/v1/ws?token": true, "/v1/ws?token=x": true, "/v1/ws?a=b&TOKEN=x": true, "/v1/ws?a;jwt=x": true,
		"/v1/ws?access%5Ftoken=x": true, "/v1/ws?Authorization=Bearer+x": true, "/v1/ws?%zz=1&jwt": true,
		"/v1/ws?a?token=x": false, "/v1/ws?a#token=x": true,
	} {
		if got := tokenInURL([]byte(target)); got != want {
			t.Errorf("%s: %v", target, got)
		}
	}
}
