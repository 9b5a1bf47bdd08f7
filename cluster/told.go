package cluster

import (
	"fmt"
	"slices"
	"sync"
)

// subjectTold is that of messages which nodes of a region tell each other for whoever
// uses this package.
const subjectTold = "told"

// told is who listens to such messages.
type told struct {
	mu    sync.Mutex
	fns   []func(node string, data []byte)
	stops []func() // of subscriptions
}

// Tell sends a small message to all other nodes of the region: at most once, to those
// that can be reached just now. A node alone tells nobody. Data is not kept.
func (c *Cluster) Tell(data []byte) {
	if c.region == nil {
		return
	}
	message := append([]byte{byte(len(c.config.Node))}, c.config.Node...)
	if err := c.bus.Publish(subjectTold, append(message, data...)); err != nil {
		c.logger.Debug("the other nodes were not told", "error", err)
	}
}

// OnTold calls fn for each message that another node of the region tells from now on, in
// the order of each node. Fn is called by one goroutine at a time; data is only valid
// during the call.
func (c *Cluster) OnTold(fn func(node string, data []byte)) {
	c.told.mu.Lock()
	defer c.told.mu.Unlock()
	c.told.fns = append(slices.Clone(c.told.fns), fn)
}

// listen takes part in what the region's nodes tell each other.
func (c *Cluster) listen() error {
	if c.region == nil {
		return nil
	}
	for subject, fn := range map[string]func(string, []byte){
		subjectTold:    c.heardTold,
		subjectRevoked: func(string, []byte) { c.revoked.signal() },
	} {
		stop, err := c.bus.Subscribe(subject, fn)
		if err != nil {
			return fmt.Errorf("listen to the other nodes: %w", err)
		}
		c.told.stops = append(c.told.stops, stop)
	}
	return nil
}

// unlisten ends listen.
func (c *Cluster) unlisten() {
	for _, stop := range c.told.stops {
		stop()
	}
}

func (c *Cluster) heardTold(_ string, data []byte) {
	if len(data) == 0 || len(data) < 1+int(data[0]) {
		return
	}
	node, data := string(data[1:1+data[0]]), data[1+data[0]:]
	if node == c.config.Node {
		return // our own
	}
	c.told.mu.Lock()
	fns := c.told.fns
	c.told.mu.Unlock()
	for _, fn := range fns {
		fn(node, data)
	}
}
