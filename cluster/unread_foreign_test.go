package cluster

import (
	"testing"

	"github.com/stockmesh/stockmesh/protocol"
)

// What a region can't read is refused at once, as something that was not done.
func TestUnreadForeignCommandIsRefusedAtOnce(t *testing.T) {
	aa, bb := linkedRegions(t, nil)
	s := newStranger(t, aa)
	s.change = later
	answers := s.ask([]protocol.Command{adjusted("k1", "x", 5, ""), adjusted("k2", "x", 5, "")})
	for key, call := range answers {
		if err := call.Err; err == nil || err.Code != protocol.CodeUnavailable || !err.Retryable || err.Details != nil {
			t.Errorf("%s: got %+v", key, err)
		}
	}
	if items := shownItems(bb); len(items) != 0 {
		t.Errorf("got %+v", items)
	}
}
