package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// All errors of the package wrap one of these or the library's own error.
var (
	// ErrMissing: the stream, bucket, message, row or object does not exist, or
	// exists no more. Nothing was changed.
	ErrMissing = errors.New("does not exist")

	// ErrWrongSequence: the log's last sequence was another one than Append was
	// told, so somebody else wrote. Nothing was stored. errors.As with a
	// *SequenceError gives the last sequence the engine saw.
	ErrWrongSequence = errors.New("wrong last sequence")

	// ErrConflict: the row's revision was another one than Put was told. The row
	// was not written.
	ErrConflict = errors.New("row has another revision")

	// ErrUnknown: the write was sent and no answer came. It may have been stored,
	// and may still be stored after this error. Read before writing again.
	ErrUnknown = errors.New("outcome unknown")

	// ErrBusy: the engine could not take the write just now. Nothing was stored;
	// the same call may be made again at once.
	ErrBusy = errors.New("engine is busy")

	// ErrNoLeader: the region, or the stream asked, has no leader just now, for want
	// of a quorum or until the next one is elected. Nothing was stored; an error
	// which may leave something stored is ErrUnknown and never this one.
	ErrNoLeader = errors.New("region has no leader")

	// ErrFull: no space, in the disk or within Config.StoreBytesMax. Nothing was
	// stored, unless the same error is ErrUnknown too. Reads still work.
	ErrFull = errors.New("no space left")

	// ErrBroken: a disk has failed this engine, or was full when it had to be written.
	// Nothing is stored until the next start, whatever becomes of the disk.
	ErrBroken = errors.New("the engine has failed")

	// ErrTooBig: the data is over MessageBytesMax. Nothing was sent.
	ErrTooBig = errors.New("message is too big")

	// ErrGap: a message of the range asked for is not in the log: it was trimmed,
	// or the range ends after the last message. Messages before the gap have been
	// handed out.
	ErrGap = errors.New("messages are missing")

	// ErrCorrupt: an object's bytes are not those its Put was given. The bytes
	// read before this error must not be used.
	ErrCorrupt = errors.New("content does not match its digest")

	// ErrName: not a valid name, key or escaped key. Nothing was sent.
	ErrName = errors.New("invalid name")

	// ErrClosed: the Bus was closed. Nothing was sent.
	ErrClosed = errors.New("bus is closed")
)

var errStandalone = errors.New("not a server of a region")

var errNotDurable = errors.New("stream does not sync each write")

// SequenceError is an ErrWrongSequence with what is known about it.
type SequenceError struct {
	Expected uint64 // what Append was told
	Actual   uint64 // the log's last sequence; 0 when the engine did not say
}

func (e *SequenceError) Error() string {
	return fmt.Sprintf("%v: expected %d, is %d", ErrWrongSequence, e.Expected, e.Actual)
}

// Is makes errors.Is(err, ErrWrongSequence) true.
func (e *SequenceError) Is(target error) bool { return target == ErrWrongSequence }

// Codes of the server's answers; its errors.json has them all.
const (
	codeAccountResources  = 10002
	codeNoPeers           = 10005 // too few servers for the replicas
	codeNotAssigned       = 10007
	codeNotAvailable      = 10008 // no leader
	codeNotLeader         = 10009
	codeNotMember         = 10044
	codeNotClustered      = 10074 // said by a server which is still starting
	codePeerRemap         = 10075
	codeMemberChange      = 10202
	codeStreamOffline     = 10118
	codeServerResources   = 10023
	codeMessageTooBig     = 10054
	codeStorageResources  = 10047
	codeWrongSequence     = 10071
	codeStoreFailed       = 10077
	codeSequenceInFlight  = 10164 // an earlier write of the subject is not yet cleared
	codeTooManyRequests   = 10167
	codeBatchIncomplete   = 10176
	codeTooManyBatches    = 10210
	codeNoMessageFound    = 10037
	codeStreamNotFound    = 10059
	statusNotFound        = "404"
	statusHeader          = "Status"
	headerExpectedLast    = "Nats-Expected-Last-Sequence"
	headerExpectedSubject = "Nats-Expected-Last-Subject-Sequence"
)

// apiError is the error part of an answer.
type apiError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *apiError) Error() string { return fmt.Sprintf("%s (%d)", e.Description, e.ErrCode) }

// refused turns the server's refusal into ours. Nothing was stored.
func refused(e *apiError) error {
	switch e.ErrCode {
	case codeAccountResources, codeServerResources, codeStorageResources:
		return fmt.Errorf("%w: %w", ErrFull, e)
	case codeSequenceInFlight, codeTooManyRequests, codeBatchIncomplete, codeTooManyBatches, codeMemberChange:
		return fmt.Errorf("%w: %w", ErrBusy, e)
	case codeNoPeers, codeNotAssigned, codeNotAvailable, codeNotLeader, codeNotClustered, codePeerRemap, codeStreamOffline:
		return fmt.Errorf("%w: %w", ErrNoLeader, e)
	case codeMessageTooBig:
		return fmt.Errorf("%w: %w", ErrTooBig, e)
	case codeNoMessageFound, codeStreamNotFound, codeNotMember:
		return fmt.Errorf("%w: %w", ErrMissing, e)
	case codeStoreFailed:
		if isNoSpace(e.Description) {
			return fmt.Errorf("%w: %w", ErrFull, e)
		}
	}
	return e
}

// cause maps errors of the client library to the package's own.
func cause(err error) error {
	var api *jetstream.APIError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(err, jetstream.ErrObjectNotFound),
		errors.Is(err, jetstream.ErrMsgNotFound), errors.Is(err, jetstream.ErrBucketNotFound):
		return fmt.Errorf("%w: %w", ErrMissing, err)
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrConnectionDraining):
		return fmt.Errorf("%w: %w", ErrClosed, err)
	case errors.Is(err, nats.ErrMaxPayload):
		return fmt.Errorf("%w: %w", ErrTooBig, err)
	case errors.As(err, &api):
		return refused(&apiError{Code: api.Code, ErrCode: int(api.ErrorCode), Description: api.Description})
	}
	return err
}

// unsent maps the error of a publish call. Only these are sure not to have
// reached the server; anything else may have left bytes on the wire.
func unsent(err error) error {
	for _, known := range []error{
		nats.ErrMaxPayload, nats.ErrConnectionClosed, nats.ErrConnectionDraining,
		nats.ErrReconnectBufExceeded, nats.ErrBadSubject,
	} {
		if errors.Is(err, known) {
			return cause(err)
		}
	}
	return fmt.Errorf("%w: %w", ErrUnknown, err)
}

// unanswered is the error of a write whose answer did not come. A stream which
// met a write error falls silent, so ask the engine whether that is the reason.
func (b *Bus) unanswered(err error) error {
	if engine := b.Err(); engine != nil && !errors.Is(engine, ErrNoLeader) {
		return fmt.Errorf("%w: %w: %w", ErrUnknown, err, engine)
	}
	return fmt.Errorf("%w: %w", ErrUnknown, err)
}

// unheard is the error of a write no stream listens to: it is not there, or the
// engine has switched its streams off. In a region only a stream's leader listens.
func (b *Bus) unheard(err error) error {
	if b.Clustered() {
		return fmt.Errorf("%w: %w", ErrNoLeader, err)
	}
	return errors.Join(fmt.Errorf("%w: %w", ErrMissing, err), b.Err())
}

// sentThen tells a write's failed request apart: refused before it left, or lost after.
func (b *Bus) sentThen(err error) error {
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return b.unheard(err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return b.unanswered(err)
	}
	return unsent(err)
}

func isNoSpace(s string) bool { return strings.Contains(s, "no space left") }
