package bus

import (
	"net/http"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
)

// A node that started on a busy machine took the server's haste for a fault, and did not
// start. What the server says then was seen as it stands here.
func TestBusyMachineIsNoFault(t *testing.T) {
	const says = "failed to be ready for connections after 1ms: startup did not complete"
	well := &server.HealthStatus{Status: "ok", StatusCode: http.StatusOK}
	for name, hasty := range map[string]*server.HealthStatus{
		"plain":   {Status: "error", StatusCode: http.StatusInternalServerError, Error: says},
		"details": {Status: "error", StatusCode: http.StatusInternalServerError, Errors: []server.HealthzError{{Type: server.HealthzErrorConn, Error: says}}},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			ask := func(wellAt int) func() *server.HealthStatus {
				asked = 0
				return func() *server.HealthStatus {
					if asked++; asked == wellAt {
						return well
					}
					return hasty
				}
			}
			if got := unhurried(ask(3)); got != well || asked != 3 {
				t.Errorf("got %+v after %d answers", got, asked)
			}
			if got := unhurried(ask(0)); got != hasty || asked != healthTries {
				t.Errorf("got %+v after %d answers, want what lasts", got, asked)
			}
		})
	}
}
