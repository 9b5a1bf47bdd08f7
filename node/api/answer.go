package api

import (
	"bufio"
	"net"
	"net/http"
	"net/url"
	"strconv"

	"github.com/stockmesh/stockmesh/protocol"
)

const (
	mediaJSON    = "application/json"
	mediaText    = "text/plain"
	mediaForm    = "application/x-www-form-urlencoded"
	mediaProblem = "application/problem+json"
	mediaEvents  = "text/event-stream"

	cacheRead  = "no-cache" // may be kept, must be asked about
	cacheWrite = "no-store"

	retrySoonMS = 1000
)

// recorder remembers the status for metrics and for the answer to a panic.
type recorder struct {
	http.ResponseWriter
	status int
}

// Unwrap lets http.ResponseController find the connection's deadlines.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Hijack implements http.Hijacker. Only what is answered with 200 takes its connection
// over.
func (w *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.status = http.StatusOK
	}
	return conn, rw, err
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// problem is an error of the wire contract as RFC 9457 wants it.
type problem struct {
	Type   string `json:"type"` // urn:stockmesh:error:<code>
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	protocol.Error
}

func titles() map[protocol.Code]string {
	return map[protocol.Code]string{
		protocol.CodeBadRequest:        "The request is malformed",
		protocol.CodeMissingKey:        "A write needs an idempotency key",
		protocol.CodeUnauthorized:      "A valid token is needed",
		protocol.CodeForbidden:         "Not allowed",
		protocol.CodeNotFound:          "Not found",
		protocol.CodeMethodNotAllowed:  "Method not allowed",
		protocol.CodeReservationEnded:  "The reservation has ended",
		protocol.CodeInsufficientStock: "Insufficient stock",
		protocol.CodeVersionConflict:   "The item has changed",
		protocol.CodeKeyReused:         "The key was used for another command",
		protocol.CodeTooLarge:          "Too large",
		protocol.CodeRateLimited:       "Too many requests",
		protocol.CodeOverloaded:        "The node is overloaded",
		protocol.CodeUnavailable:       "The ledger is unavailable",
		protocol.CodeRegionUnreachable: "The home region is unreachable",
	}
}

func writeProblem(w http.ResponseWriter, e *protocol.Error) {
	writeProblemStatus(w, e, e.Code.Status())
}

func writeProblemStatus(w http.ResponseWriter, e *protocol.Error, status int) {
	p := problem{
		Type:   "urn:stockmesh:error:" + string(e.Code),
		Title:  titles()[e.Code],
		Status: status,
		Detail: e.Message,
		Error:  *e,
	}
	if p.Title == "" {
		p.Title = http.StatusText(status)
	}
	if e.Code == protocol.CodeUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", strconv.FormatInt(retrySeconds(e.RetryAfterMS), 10))
	}
	writeJSON(w, status, mediaProblem, cacheWrite, protocol.AppendJSON(nil, &p))
}

// retrySeconds rounds up, and to at least a second: Retry-After knows nothing
// finer, and 0 would ask for a busy loop.
func retrySeconds(ms int64) int64 { return max(1, (ms+999)/1000) }

func writeJSON(w http.ResponseWriter, status int, media, cache string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", media)
	h.Set("Cache-Control", cache)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	// A reader that has gone is no news to anybody.
	_, _ = w.Write(body)
}

// writeOK answers with a call's ok object.
func writeOK(w http.ResponseWriter, status int, cache string, call *protocol.Call) {
	h := w.Header()
	switch res := &call.Result; res.Kind {
	case protocol.KindItem:
		h.Set("ETag", etag(res.Items[0].Version))
	case protocol.KindReservation:
		if status == http.StatusCreated {
			h.Set("Location", "/v1/reservations/"+url.PathEscape(res.Reservation.ID))
		}
	}
	if call.Replayed {
		h.Set("Idempotent-Replayed", "true")
	}
	writeJSON(w, status, mediaJSON, cache, protocol.AppendOK(nil, &call.Result))
}

// appendBehind adds the mark of an answer that did not reach at_least to the
// JSON object that b ends with.
func appendBehind(b []byte, behind bool) []byte {
	if !behind {
		return b
	}
	return append(b[:len(b)-1], `,"behind":true}`...)
}
