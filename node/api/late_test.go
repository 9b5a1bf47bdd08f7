package api

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stockmesh/stockmesh/protocol"
)

// readStep calls do before its first byte.
type readStep struct {
	io.Reader
	do func()
}

func (r *readStep) Read(b []byte) (int, error) {
	if r.do != nil {
		r.do()
		r.do = nil
	}
	return r.Reader.Read(b)
}

// A command whose body comes after its caller was revoked is not carried out.
func TestBodyThatComesTooLate(t *testing.T) {
	f, g := guarded(t)
	caller := g.give("office", `[{"do":["adjust"]}]`)
	for path, body := range map[string]string{
		"/v1/adjustments": `{"key":"k","sku":"a","delta":1}`,
		"/v1/batch":       `[{"op":"adjust","key":"k","sku":"a","delta":1}]`,
	} {
		g.restore(caller)
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, &readStep{strings.NewReader(body), func() { g.revoke(caller) }})
		r.Header.Set("Authorization", "Bearer office")
		w := httptest.NewRecorder()
		f.api.ServeHTTP(w, r)
		if !strings.Contains(w.Body.String(), `"unauthorized"`) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

func (g *fakeGuard) restore(c *protocol.Caller) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.revoked, c)
}
