package server

import (
	_ "embed"
	"net/http"

	"github.com/stockmesh/stockmesh/protocol"
)

//go:embed console.html
var console []byte

// publicHandler serves the console at / and the HTTP interface everywhere else.
func (s *Server) publicHandler(api http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f := s.front.Load(); f != nil && f.leaving.Load() {
			// Who asks again does so by a new connection, rather than by one that is about to be
			// closed.
			w.Header().Set("Connection", "close")
		}
		if s.localOnly() && !s.config.names(r.Host) {
			writeProblem(w, http.StatusForbidden, protocol.CodeForbidden, unknownHost(r.Host))
			return
		}
		if r.URL.Path != "/" || tokenInURL(r) || r.Method != http.MethodGet && r.Method != http.MethodHead {
			api.ServeHTTP(w, r)
			return
		}
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Cache-Control", "no-cache")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self' ws: wss:; base-uri 'none'; frame-ancestors 'none'")
		_, _ = w.Write(console)
	})
}
