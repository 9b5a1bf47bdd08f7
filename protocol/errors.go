package protocol

import "fmt"

// Code names an error of the wire contract.
type Code string

// The codes. Unless noted nothing was done when a command is answered with one.
const (
	CodeBadRequest        Code = "bad_request"        // malformed, unknown op, wrong type or range
	CodeMissingKey        Code = "missing_key"        // a write without key
	CodeUnauthorized      Code = "unauthorized"       // no or bad token
	CodeForbidden         Code = "forbidden"          // not allowed for this command, SKU or location
	CodeNotFound          Code = "not_found"          // no such route, reservation or region
	CodeMethodNotAllowed  Code = "method_not_allowed" // the route exists, not with this method
	CodeReservationEnded  Code = "reservation_ended"  // details.state
	CodeInsufficientStock Code = "insufficient_stock" // details.lines
	CodeVersionConflict   Code = "version_conflict"   // details.item
	CodeKeyReused         Code = "key_reused"         // same key, other body; nothing new
	CodeTooLarge          Code = "too_large"          // more lines, commands, selectors or body than the limit
	CodeRateLimited       Code = "rate_limited"       // retry after retry_after_ms
	CodeOverloaded        Code = "overloaded"         // shed before anything was done; retry after retry_after_ms
	CodeUnavailable       Code = "unavailable"        // nothing, or unknown where details.outcome is "unknown"
	CodeRegionUnreachable Code = "region_unreachable" // the home region can't be reached; as unavailable
)

var statuses = map[Code]int{
	CodeBadRequest: 400, CodeMissingKey: 400, CodeUnauthorized: 401, CodeForbidden: 403,
	CodeNotFound: 404, CodeMethodNotAllowed: 405, CodeReservationEnded: 409,
	CodeInsufficientStock: 409, CodeVersionConflict: 412, CodeKeyReused: 422,
	CodeTooLarge: 413, CodeRateLimited: 429, CodeOverloaded: 503, CodeUnavailable: 503,
	CodeRegionUnreachable: 503,
}

// Codes lists every code of the contract with its HTTP status.
func Codes() map[Code]int {
	m := make(map[Code]int, len(statuses))
	for c, s := range statuses {
		m[c] = s
	}
	return m
}

// Status returns the HTTP status that goes with the code.
func (c Code) Status() int {
	if s, ok := statuses[c]; ok {
		return s
	}
	return 500
}

// Shortage is one line of an insufficient_stock answer.
type Shortage struct {
	SKU       string `json:"sku"`
	Location  string `json:"location"`
	Requested int64  `json:"requested"`
	Available int64  `json:"available"` // what this region could give
	Elsewhere int64  `json:"elsewhere"` // units other regions may hold
}

// Details carries what a client needs to act on an error. Each code fills only
// its own fields.
type Details struct {
	State   State      `json:"state,omitzero"`   // reservation_ended
	Lines   []Shortage `json:"lines,omitzero"`   // insufficient_stock
	Item    *Item      `json:"item,omitzero"`    // version_conflict
	Outcome string     `json:"outcome,omitzero"` // "unknown": the command may have taken effect
}

// Error is the error object of the wire contract and a Go error.
type Error struct {
	Code         Code     `json:"code"`
	Message      string   `json:"message"`
	Retryable    bool     `json:"retryable"`
	RetryAfterMS int64    `json:"retry_after_ms"`
	Details      *Details `json:"details,omitzero"`
}

func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// Is makes errors.Is(err, &Error{Code: c}) match on the code alone.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// NewError returns an error that can't be mended by sending the same again.
func NewError(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// BadRequest returns a bad_request error.
func BadRequest(format string, args ...any) *Error {
	return NewError(CodeBadRequest, format, args...)
}

// RetryLater returns an error that tells the client to send the same again after
// the given time.
func RetryLater(code Code, afterMS int64, format string, args ...any) *Error {
	e := NewError(code, format, args...)
	e.Retryable, e.RetryAfterMS = true, afterMS
	return e
}

// Close codes of the WebSocket. 40xx: do not reconnect; 41xx: reconnect after a
// pause; 42xx: reconnect at once elsewhere.
const (
	CloseNormal             = 1000
	CloseGoingAway          = 1001
	CloseProtocolError      = 1002
	CloseUnsupportedData    = 1003 // binary on JSON, text on CBOR
	CloseInvalidPayload     = 1007 // bad UTF-8
	CloseTooLarge           = 1009
	CloseUnauthorized       = 4001
	CloseForbidden          = 4003
	CloseAbuse              = 4008
	CloseSlowConsumer       = 4100
	CloseIdle               = 4101
	CloseTooManyConnections = 4102
	CloseDrain              = 4200
)
