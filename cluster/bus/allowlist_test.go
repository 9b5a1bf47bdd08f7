package bus

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stockmesh/stockmesh/cluster/clustertest/loopback"
)

// rawLeaf speaks a link's protocol by hand, so that nothing on its side holds it back.
type rawLeaf struct {
	t    testing.TB
	conn net.Conn
	done chan struct{} // closed when the connection is

	mu   sync.Mutex
	got  []string // subjects of messages
	errs []string
}

// dialRaw logs in as a region with its own password.
func dialRaw(t testing.TB, to *Bus, as, pass string, hub bool) *rawLeaf {
	t.Helper()
	conn, err := net.Dial("tcp", to.LinkAddr())
	if err != nil {
		t.Fatal(err)
	}
	l := &rawLeaf{t: t, conn: conn, done: make(chan struct{})}
	connect := must[[]byte](t)(json.Marshal(map[string]any{
		"user": as, "pass": pass, "name": "raw", "cluster": "raw" + as, "version": "2.15.2", "domain": as,
		"headers": true, "jetstream": true, "is_hub": hub, "remote_account": "$G", "protocol": 1,
	}))
	l.send("CONNECT %s\r\nPING\r\n", connect)
	go l.read()
	t.Cleanup(func() { conn.Close(); <-l.done })
	return l
}

func (l *rawLeaf) send(f string, v ...any) {
	_, _ = fmt.Fprintf(l.conn, f, v...) // a refused one may be closed at once
}

func (l *rawLeaf) publish(subject, reply, data string) {
	switch {
	case strings.HasPrefix(subject, "mirror.") && strings.Contains(subject, doorAPI): // for a queue group, which the sender names
		subject += " + " + reply + " " + doorQueue
	case reply != "":
		subject += " " + reply
	}
	l.send("LMSG %s %d\r\n%s\r\n", subject, len(data), data)
}

func (l *rawLeaf) read() {
	defer close(l.done)
	r := bufio.NewReaderSize(l.conn, 1<<20)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		l.mu.Lock()
		verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch verb {
		case "PING":
			l.send("PONG\r\n")
		case "-ERR":
			l.errs = append(l.errs, rest)
		case "LMSG", "HMSG":
			subject, _, _ := strings.Cut(rest, " ")
			l.got = append(l.got, subject)
		}
		l.mu.Unlock()
	}
}

func (l *rawLeaf) received(subject string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.got {
		if s == subject {
			return true
		}
	}
	return false
}

func (l *rawLeaf) closed() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// listening opens region "m", which the regions "a" and "c" may dial.
func listening(t *testing.T) (*site, *Table, *Log) {
	m := newSite(t, "m", 1)
	for _, name := range []string{"a", "c"} {
		if err := m.buses[0].Link(Peer{Region: name}); err != nil {
			t.Fatal(err)
		}
	}
	return m, m.table("life"), newLog(t, m.buses[0])
}

func TestWhatALinkLetsIn(t *testing.T) {
	m, tab, log := listening(t)
	b := m.buses[0]
	if _, err := log.Append(t.Context(), []byte("one"), 0); err != nil {
		t.Fatal(err)
	}
	pass := password([]string{"secret"}, "a", "m")
	create := func(deliver string) string {
		return `{"stream_name":"KV_stock","config":{"name":"JS_MIRROR_x","deliver_subject":"` + deliver +
			`","ack_policy":"none","deliver_policy":"by_start_sequence","opt_start_seq":1,"ack_wait":79200000000000,` +
			`"max_deliver":1,"idle_heartbeat":1000000000,"flow_control":true,"direct":true,"sourcing":true,"inactive_threshold":10000000000}}`
	}
	reply := "$JSC.R.m.x.KV_stock.y.z"
	for _, forbidden := range []struct{ subject, reply, data string }{
		{subject: "$KV.stock.r.1", data: "forged"},
		{subject: "$KV.stock_c.r.1", data: "forged"},
		{subject: "log.l", data: "forged"},
		{subject: "shard.1.commands", data: "forged"},
		{subject: "site.m.c.news", data: "in c's name"},
		{subject: "site.c.a.news", data: "over m to c"},
		{subject: "site.a.m.news", data: "in m's name"},
		{subject: "mirror.m.c.M.abc", data: "a row in c's name"},
		{subject: "$JSC.R.c.x.KV_stock.y", data: "an answer in c's name"},
		{subject: "$JSC.R.abc", data: "an answer"},
		{subject: "$JS.API.STREAM.PURGE.LOG_l", reply: reply},
		{subject: "$JS.m.API.STREAM.PURGE.LOG_l", reply: reply},
		{subject: "$JS.m.API.STREAM.DELETE.KV_stock", reply: reply},
		{subject: "$JS.m.API.STREAM.MSG.GET.LOG_l", reply: reply, data: `{"seq":1}`},
		{subject: "$JS.m.API.CONSUMER.CREATE.KV_stock", reply: reply, data: create("mirror.a.m.M.x")},
		{subject: "$JS.m.API.CONSUMER.CREATE.LOG_l", reply: reply, data: create("mirror.a.m.M.x")},
		{subject: "$SYS.REQ.SERVER.PING", reply: reply},
		{subject: "$O.snapshots.C.x", data: "forged"},
		{subject: "_INBOX.abc", data: "an answer"},
		{subject: "$JS.FC.m.x.LOG_l.y.z"},
		{subject: "$JS.FC.c.x.KV_stock.y.z"},
		{subject: "mirror.m.a.API.STREAM.PURGE.KV_stock", reply: reply},
		{subject: "mirror.m.a.API.CONSUMER.CREATE.LOG_l", reply: reply, data: strings.ReplaceAll(create("mirror.a.m.M.x"), "KV_stock", "LOG_l")},
		{subject: "mirror.m.a.API.CONSUMER.CREATE.KV_stock", reply: reply, data: create("log.l")},
		{subject: "mirror.m.a.API.CONSUMER.CREATE.KV_stock", reply: reply, data: create("mirror.c.m.M.x")},
		{subject: "mirror.m.a.API.CONSUMER.CREATE.KV_stock", reply: "log.l", data: create("mirror.a.m.M.x")},
		{subject: "mirror.m.a.API.CONSUMER.DELETE.KV_stock.other", reply: reply},
	} {
		for _, hub := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s hub=%v", forbidden.subject, hub), func(t *testing.T) {
				answers := watchAll(t, b, reply)
				seen := watchAll(t, b, forbidden.subject)
				marks := watchAll(t, b, "site.m.a.mark")
				l := dialRaw(t, b, "a", pass, hub)
				l.publish(forbidden.subject, forbidden.reply, forbidden.data)
				l.publish("site.m.a.mark", "", "")
				within(t, 10*time.Second, "the link has judged", func() bool { return l.closed() || marks() > 0 })
				if seen() > 0 && !strings.HasPrefix(forbidden.subject, "mirror.m.a.API.") {
					t.Error("it got through")
				}
				if answers() > 0 {
					t.Error("it was answered")
				}
			})
		}
	}
	if _, err := log.Append(t.Context(), []byte("two"), 1); err != nil {
		t.Errorf("the log was written: %v", err)
	}
	if _, _, err := tab.Get(t.Context(), "r.1"); err == nil {
		t.Error("a row was written")
	}
	t.Run("allowed", func(t *testing.T) {
		answers := watchAll(t, b, "$JSC.R.m.>")
		l := dialRaw(t, b, "a", pass, false)
		l.publish("mirror.m.a.API.CONSUMER.CREATE.KV_stock", reply, create("mirror.a.m.M.x"))
		within(t, 10*time.Second, "an answer", func() bool { return answers() > 0 })
	})
}

// watchAll counts the messages that pass on a subject inside of a server.
func watchAll(t *testing.T, b *Bus, subject string) func() int {
	t.Helper()
	var mu sync.Mutex
	n := 0
	sub, err := b.wire.nc.Subscribe(subject, func(*nats.Msg) { mu.Lock(); n++; mu.Unlock() })
	if err == nil {
		err = b.wire.nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sub.Unsubscribe() })
	return func() int {
		// What the link has brought before is through when this comes back.
		_ = b.wire.nc.Flush()
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

func TestWhatALinkLetsOut(t *testing.T) {
	m, tab, log := listening(t)
	b := m.buses[0]
	for _, hub := range []bool{false, true} {
		for _, interest := range []string{">", "*.>", "site.>", "site.c.>", "$JSC.>", "log.>", "$KV.>", "mirror.>", "shard.1", "log.l", "$KV.stock.r.1"} {
			t.Run(fmt.Sprintf("%s hub=%v", interest, hub), func(t *testing.T) {
				l := dialRaw(t, b, "a", password([]string{"secret"}, "a", "m"), hub)
				l.send("LS+ site.a.m.mark\r\nLS+ %s\r\n", interest)
				_, last, err := log.Bounds(t.Context())
				if err == nil {
					_, err = log.Append(t.Context(), []byte("secret"), last)
				}
				if err != nil {
					t.Fatal(err)
				}
				put(t, tab, 1, 2, "v")
				within(t, 10*time.Second, "the link has judged", func() bool {
					if err := b.Publish("shard.1", nil); err != nil {
						t.Fatal(err)
					}
					if err := b.Send("c", "news", nil); err != nil {
						t.Fatal(err)
					}
					if err := b.Send("a", "mark", nil); err != nil {
						t.Fatal(err)
					}
					return l.closed() || l.received("site.a.m.mark")
				})
				l.mu.Lock()
				defer l.mu.Unlock()
				for _, s := range l.got {
					if !strings.HasPrefix(s, "site.a.m.") {
						t.Errorf("%s left the region", s)
					}
				}
			})
		}
	}
}

func TestWhoMayLogIn(t *testing.T) {
	m := newSite(t, "m", 1)
	if err := m.buses[0].Link(Peer{Region: "a"}); err != nil {
		t.Fatal(err)
	}
	if err := m.buses[0].Link(Peer{Region: "z", Dial: true, Addrs: []string{loopback.Addresses(t, 1)[0]}}); err != nil {
		t.Fatal(err)
	}
	m.secrets.Store(&[]string{"new", "old"})
	for name, c := range map[string]struct {
		region, pass string
		ok           bool
	}{
		"first secret":        {"a", password([]string{"new"}, "a", "m"), true},
		"second secret":       {"a", password([]string{"old"}, "a", "m"), true},
		"unknown secret":      {"a", password([]string{"x"}, "a", "m"), false},
		"no password":         {"a", "", false},
		"another link's":      {"a", password([]string{"new"}, "a", "b"), false},
		"unknown region":      {"b", password([]string{"new"}, "b", "m"), false},
		"one that is dialled": {"z", password([]string{"new"}, "z", "m"), false},
		"this region":         {"m", password([]string{"new"}, "m", "m"), false},
		"no name":             {"", "", false},
		"the system":          {systemUser, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			marks := watchAll(t, m.buses[0], "site.m.*.mark")
			l := dialRaw(t, m.buses[0], c.region, c.pass, false)
			l.publish("site.m."+c.region+".mark", "", "")
			within(t, 10*time.Second, "it is in, or out", func() bool { return l.closed() || marks() > 0 })
			if in := marks() > 0; in != c.ok {
				t.Fatalf("let in: %v", in)
			}
		})
	}
}
