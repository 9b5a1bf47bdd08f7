package bus

import (
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
)

// wireBytesMax is how much one subscription holds for a function that is slow.
const wireBytesMax = 64 << 20

// Publish sends data to whoever has subscribed to subject just now, on any server
// of the region, this one included. It is kept nowhere: at most once, and lost to
// those that can't be reached. Messages of one Bus arrive in the order of their
// calls. Data is not kept. Subjects of Logs, Tables and Archives are ErrName,
// and those of the links between regions.
func (b *Bus) Publish(subject string, data []byte) error {
	if err := wireSubject(subject); err != nil {
		return err
	}
	if err := b.wire.nc.Publish(subject, data); err != nil {
		return fmt.Errorf("bus: publish %s: %w", subject, cause(err))
	}
	return nil
}

// Subscribe calls fn for each message published to subject from now on; * in it
// stands for one token, > for all that follow. fn is called from one goroutine,
// in the order of arrival, and data is only valid during the call. What arrives
// while 64 MiB are waiting for fn is dropped, and the log says so.
//
// When Subscribe returns, this server knows; the others learn of it at once, but
// later. stop ends it and waits for fn to return, so it must not be called by fn.
func (b *Bus) Subscribe(subject string, fn func(subject string, data []byte)) (stop func(), err error) {
	if err := wireSubject(subject); err != nil {
		return nil, err
	}
	sub, done, err := b.subscribe(subject, fn)
	if err != nil {
		return nil, fmt.Errorf("bus: subscribe %s: %w", subject, cause(err))
	}
	return func() {
		_ = sub.Unsubscribe() // fails when the connection is closed, and so is this
		<-done
	}, nil
}

func (b *Bus) subscribe(subject string, fn func(string, []byte)) (*nats.Subscription, <-chan struct{}, error) {
	sub, err := b.wire.nc.Subscribe(subject, func(m *nats.Msg) { fn(m.Subject, m.Data) })
	if err != nil {
		return nil, nil, err
	}
	done := make(chan struct{})
	sub.SetClosedHandler(func(string) { close(done) })
	err = errors.Join(sub.SetPendingLimits(-1, wireBytesMax), b.wire.nc.FlushTimeout(b.answerWait))
	if err != nil {
		_ = sub.Unsubscribe()
		return nil, nil, err
	}
	return sub, done, nil
}

// wireSubject keeps messages out of the streams, which would store them unchecked.
func wireSubject(subject string) error {
	first, _, _ := strings.Cut(subject, ".")
	if first == "" || first == "log" || first == "site" || first == "mirror" || first == "*" || first == ">" || strings.HasPrefix(first, "$") || strings.ContainsAny(subject, " \t\r\n") {
		return fmt.Errorf("bus: %w: subject %q", ErrName, subject)
	}
	return nil
}
