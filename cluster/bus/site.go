package bus

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// sitePrefix begins the subjects of messages between regions; see siteSubject.
const sitePrefix = "site."

// siteSubject is that of a message to the nodes of one region from another. A link's
// allow-list holds the second name true.
func siteSubject(to, from, subject string) string {
	return sitePrefix + to + "." + from + "." + subject
}

// Send sends data to all nodes of another region that have called Receive for the
// subject. It is kept nowhere: at most once, and lost to those that can't be reached.
// Messages of one Bus arrive in the order of their calls. Data is not kept. ErrMissing:
// the region is not linked.
func (b *Bus) Send(region, subject string, data []byte) error {
	if b.mesh == nil {
		return errNoMesh
	}
	if !literal(subject) {
		return fmt.Errorf("bus: send to %s: %w: subject %q", region, ErrName, subject)
	}
	if !b.mesh.linked(region) {
		return fmt.Errorf("bus: send to %s: %w: no such link", region, ErrMissing)
	}
	return b.mesh.send(region, subject, data)
}

func (m *mesh) send(region, subject string, data []byte) error {
	if err := m.bus.wire.nc.Publish(siteSubject(region, m.config.Region, subject), data); err != nil {
		return fmt.Errorf("bus: send to %s: %w", region, cause(err))
	}
	return nil
}

// Receive calls fn for each message that a linked region sends to subject from now on,
// those that are linked later included; * in it stands for one token, > for all that
// follow. From is the region that sent it, as its link's allow-list enforces. Fn is
// called by one goroutine at a time, in the order of arrival from each region, and
// data is only valid during the call. What arrives while 64 MiB of one region are
// waiting for fn is dropped.
//
// Stop ends it and waits for fn to return, so it must not be called by fn. The
// subjects ping, pong.> and alive are the package's own.
func (b *Bus) Receive(subject string, fn func(from, subject string, data []byte)) (stop func(), err error) {
	if b.mesh == nil {
		return nil, errNoMesh
	}
	if subject == "" || strings.ContainsAny(subject, " \t\r\n") {
		return nil, fmt.Errorf("bus: receive: %w: subject %q", ErrName, subject)
	}
	r := &receiver{mesh: b.mesh, subject: subject, fn: fn, subs: make(map[string]heardFrom)}
	if err := r.start(); err != nil {
		return nil, fmt.Errorf("bus: receive %s: %w", subject, cause(err))
	}
	return r.stop, nil
}

// receiver is one call of Receive: a subscription for each region that is linked. One
// for all would not cross the links, whose allow-lists take no interest in more than
// the messages of the two.
type receiver struct {
	mesh    *mesh
	subject string
	fn      func(from, subject string, data []byte)

	call sync.Mutex // held while fn runs

	mu   sync.Mutex
	over bool
	subs map[string]heardFrom // by region
}

type heardFrom struct {
	sub  *nats.Subscription
	done <-chan struct{}
}

func (r *receiver) start() error {
	m := r.mesh
	m.reload.Lock() // no region comes or goes meanwhile
	defer m.reload.Unlock()
	m.mu.Lock()
	m.receivers[r] = struct{}{}
	var regions []string
	for name := range m.peers {
		regions = append(regions, name)
	}
	m.mu.Unlock()
	for _, region := range regions {
		if err := r.hear(region); err != nil {
			r.stop()
			return err
		}
	}
	return nil
}

func (r *receiver) hear(region string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over || r.subs[region].sub != nil {
		return nil
	}
	prefix := siteSubject(r.mesh.config.Region, region, "")
	sub, done, err := r.mesh.bus.subscribe(prefix+r.subject, func(subject string, data []byte) {
		r.mesh.heardOf(region)
		r.call.Lock()
		defer r.call.Unlock()
		r.fn(region, strings.TrimPrefix(subject, prefix), data)
	})
	if err != nil {
		return err
	}
	r.subs[region] = heardFrom{sub, done}
	return nil
}

func (r *receiver) unhear(region string) {
	r.mu.Lock()
	h := r.subs[region]
	delete(r.subs, region)
	r.mu.Unlock()
	h.end()
}

func (h heardFrom) end() {
	if h.sub != nil {
		_ = h.sub.Unsubscribe() // fails when the connection is closed, and so is this
		<-h.done
	}
}

func (r *receiver) stop() {
	r.mesh.mu.Lock()
	delete(r.mesh.receivers, r)
	r.mesh.mu.Unlock()
	r.mu.Lock()
	r.over = true
	subs := r.subs
	r.subs = nil
	r.mu.Unlock()
	for _, h := range subs {
		h.end()
	}
}

// hear makes all receivers listen to a region.
func (m *mesh) hear(region string) error {
	for _, r := range m.allReceivers() {
		if err := r.hear(region); err != nil {
			return cause(err)
		}
	}
	return nil
}

func (m *mesh) unhear(region string) {
	for _, r := range m.allReceivers() {
		r.unhear(region)
	}
}

func (m *mesh) allReceivers() (all []*receiver) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for r := range m.receivers {
		all = append(all, r)
	}
	return all
}

// heardOf notes a sign of life.
func (m *mesh) heardOf(region string) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.peers[region]; p != nil {
		p.heard = now
	}
}

// literal tells a subject to publish to from a pattern and from nonsense.
func literal(subject string) bool {
	for token := range strings.SplitSeq(subject, ".") {
		if token == "" || token == "*" || token == ">" || strings.ContainsAny(token, " \t\r\n") {
			return false
		}
	}
	return true
}
