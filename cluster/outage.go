package cluster

import (
	"log/slog"
	"sync"
	"time"
)

// outage is a failure that lasts: health shows it, the log has its beginning, its
// end and now and then how it stands, however often it is met.
type outage struct {
	logger *slog.Logger
	began  string // log message
	ended  string // log message

	mu    sync.Mutex
	err   error
	count int       // failures since it began
	told  time.Time // last log line
}

// outageTellEvery is the time between two log lines of one outage.
const outageTellEvery = 10 * time.Second

// note takes the result of a try.
func (o *outage) note(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	before := o.err
	o.err = err
	switch {
	case err == nil && before != nil:
		o.logger.Info(o.ended, "failures", o.count)
		o.count = 0
	case err != nil:
		o.count++
		if before == nil || time.Since(o.told) > outageTellEvery {
			o.told = time.Now()
			o.logger.Error(o.began, "failures", o.count, "error", err)
		}
	}
}

// health returns the failure while it lasts.
func (o *outage) health() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}
