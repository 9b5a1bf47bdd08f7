package api

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/stockmesh/stockmesh/protocol"
)

// checkOrigin refuses what a page of another site sends through its visitor's
// browser, unless that site is allowed. Programs send no Origin. cross reports
// an allowed other site, whose scripts are then let see the answer.
func (a *API) checkOrigin(w http.ResponseWriter, r *http.Request) (cross bool, err *protocol.Error) {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false, nil
	}
	if u, bad := url.Parse(origin); bad == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host) {
		return false, nil
	}
	if !a.origins[strings.ToLower(origin)] {
		return false, protocol.NewError(protocol.CodeForbidden, "requests from origin %.200q are not allowed", origin)
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", "ETag, Idempotent-Replayed, Location, Retry-After, WWW-Authenticate")
	h.Add("Vary", "Origin")
	return true, nil
}

func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != ""
}

// servePreflight tells an allowed site's browser what may be sent to the path.
func (a *API) servePreflight(w http.ResponseWriter, r *http.Request) {
	methods := a.methods(r.URL.EscapedPath())
	if len(methods) == 0 {
		writeProblem(w, protocol.NewError(protocol.CodeNotFound, "no such route"))
		return
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Methods", strings.Join(methods, ", "))
	h.Set("Access-Control-Allow-Headers",
		"Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, Traceparent")
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
}
