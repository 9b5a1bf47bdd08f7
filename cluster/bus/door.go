package bus

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
)

// What the mirrors of other regions ask for. They do not reach the engine's own API:
// a request names the subject to which the engine then sends rows, and one made up
// could have it write them into our Logs.
const (
	doorQueue      = "door" // one server of the region answers
	doorAPI        = ".API."
	consumerCreate = "CONSUMER.CREATE."
	consumerDelete = "CONSUMER.DELETE."
	mirrorConsumer = "JS_MIRROR_" // begins the names of the engine's own
)

// mirrorAPI is where the region asked takes the requests of another's mirrors.
func mirrorAPI(asked, asking string) string {
	return strings.TrimSuffix(deliveries(asked, asking)+doorAPI, ".")
}

// openDoor lets the mirrors of a region ask this one.
func (m *mesh) openDoor(region string) (*nats.Subscription, error) {
	prefix := mirrorAPI(m.config.Region, region) + "."
	nc := m.bus.bulk.nc
	return nc.QueueSubscribe(prefix+">", doorQueue, func(r *nats.Msg) {
		request := strings.TrimPrefix(r.Subject, prefix)
		if !m.admits(region, request, r.Reply, r.Data) {
			m.bus.log.to.Warn("a request of another region was refused", "region", region, "request", request)
			return
		}
		out := &nats.Msg{Subject: "$JS.API." + request, Reply: r.Reply, Header: r.Header, Data: r.Data}
		if err := nc.PublishMsg(out); err != nil {
			m.bus.log.to.Debug("a request of another region was not passed on", "region", region, "error", err)
		}
	})
}

// admits tells whether a request is one that a region's mirror makes of a bucket it
// may have.
func (m *mesh) admits(region, request, reply string, data []byte) bool {
	if !strings.HasPrefix(reply, "$JSC.R."+m.config.Region+".") {
		return false
	}
	if rest, ok := strings.CutPrefix(request, consumerDelete); ok {
		stream, consumer, _ := strings.Cut(rest, ".")
		return m.open(stream) && strings.HasPrefix(consumer, mirrorConsumer) && len(data) == 0
	}
	stream, ok := strings.CutPrefix(request, consumerCreate)
	if !ok || !m.open(stream) {
		return false
	}
	var r struct {
		Stream string `json:"stream_name"`
		Config struct {
			Name    string `json:"name"`
			Durable string `json:"durable_name"`
			Deliver string `json:"deliver_subject"`
		} `json:"config"`
	}
	return json.Unmarshal(data, &r) == nil && r.Stream == stream &&
		r.Config.Durable == "" && strings.HasPrefix(r.Config.Name, mirrorConsumer) &&
		strings.HasPrefix(r.Config.Deliver, deliveries(region, m.config.Region)+".M.")
}

// open tells whether a stream may be mirrored.
func (m *mesh) open(stream string) bool {
	bucket, ok := strings.CutPrefix(stream, "KV_")
	return ok && slices.Contains(m.config.buckets(), bucket)
}
