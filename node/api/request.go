package api

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/stockmesh/stockmesh/protocol"
)

// request is an HTTP request whose path and query have been taken apart.
type request struct {
	*http.Request
	params  map[string]string
	query   url.Values
	who     *protocol.Caller // nil where the route is public, as account
	account Account          // nil too where a stream has taken it along
	address string           // of the client, without port; "" if unknown
}

func newRequest(r *http.Request, params map[string]string) (*request, *protocol.Error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, protocol.BadRequest("query: %v", err)
	}
	req := &request{Request: r, params: params, query: query}
	return req, req.checkNoToken()
}

// release gives back the account, unless a stream has it now.
func (r *request) release() {
	if r.account != nil {
		r.account.Release()
	}
}

// one returns a parameter that may be given once; "" if it is missing.
func (r *request) one(name string) (string, *protocol.Error) {
	switch v := r.query[name]; len(v) {
	case 0:
		return "", nil
	case 1:
		return v[0], nil
	default:
		return "", protocol.BadRequest("%s is given %d times", name, len(v))
	}
}

// ones reads several such parameters.
func (r *request) ones(into map[string]*string) *protocol.Error {
	for name, dst := range into {
		v, err := r.one(name)
		if err != nil {
			return err
		}
		*dst = v
	}
	return nil
}

// integer returns a parameter within low..high, missing if it is not there.
func (r *request) integer(name string, low, high, missing int) (int, *protocol.Error) {
	s, err := r.one(name)
	if err != nil || !r.query.Has(name) {
		return missing, err
	}
	n, bad := strconv.Atoi(s)
	if bad != nil || n < low || n > high {
		return 0, protocol.BadRequest("%s must be an integer %d..%d", name, low, high)
	}
	return n, nil
}

// flag returns a boolean parameter; naming it without a value means true.
func (r *request) flag(name string) (bool, *protocol.Error) {
	s, err := r.one(name)
	if err != nil || !r.query.Has(name) {
		return false, err
	}
	switch s {
	case "", "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return false, protocol.BadRequest("%s must be true or false", name)
}

// header returns a header that may be sent once.
func (r *request) header(name string) (value string, ok bool, err *protocol.Error) {
	switch v := r.Header.Values(name); len(v) {
	case 0:
		return "", false, nil
	case 1:
		return v[0], true, nil
	default:
		return "", false, protocol.BadRequest("%s is sent %d times", name, len(v))
	}
}

// idempotencyKey returns the Idempotency-Key header, "" if there is none.
func (r *request) idempotencyKey() (string, *protocol.Error) {
	key, ok, err := r.header("Idempotency-Key")
	switch {
	case err != nil:
		return "", err
	case ok && key == "":
		return "", protocol.BadRequest("Idempotency-Key is empty")
	case !utf8.ValidString(key):
		return "", protocol.BadRequest("Idempotency-Key is not valid UTF-8")
	}
	return key, nil
}

// readBody returns the whole body, at most limit bytes of JSON.
func (a *API) readBody(w http.ResponseWriter, r *request, limit int64) ([]byte, *protocol.Error) {
	if err := checkContentType(r); err != nil {
		return nil, err
	}
	// A body that trickles in would hold a goroutine and a connection for as long
	// as its sender likes. Writers without deadlines are those of tests.
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(a.cfg.BodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	_ = rc.SetReadDeadline(time.Time{})
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, protocol.NewError(protocol.CodeTooLarge, "the body is over the limit of %d bytes", limit)
	}
	if err != nil {
		return nil, protocol.BadRequest("the body could not be read: %v", err)
	}
	return body, nil
}

// checkContentType refuses what is certainly no JSON. It lets the types pass that
// curl -d and fetch put on any body; another site's pages are stopped by their
// Origin.
func checkContentType(r *request) *protocol.Error {
	v, ok, err := r.header("Content-Type")
	if err != nil || !ok {
		return err
	}
	media, _, bad := mime.ParseMediaType(v)
	if bad == nil && (media == mediaJSON || media == mediaForm || media == mediaText || strings.HasSuffix(media, "+json")) {
		return nil
	}
	return protocol.BadRequest("Content-Type is %.100q, want %s", v, mediaJSON)
}
