package bus
import ("testing";"time";"github.com/nats-io/nats.go")
func TestDbg(t *testing.T) {
	m, _, _ := listening(t)
	b := m.buses[0]
	b.wire.nc.Subscribe("$JSC.R.m.>", func(x *nats.Msg){ t.Log("ANS", string(x.Data)) })
	b.wire.nc.Subscribe("mirror.>", func(x *nats.Msg){ t.Log("MIR", x.Subject, x.Reply, string(x.Data)) })
	b.wire.nc.Flush()
	l := dialRaw(t, b, "a", password([]string{"secret"}, "a", "m"), false)
	l.send("LS+ mirror.a.m.>\r\n")
	l.publish("mirror.m.a.API.CONSUMER.CREATE.KV_stock", "$JSC.R.m.x.KV_stock.y.z", `{"stream_name":"KV_stock","config":{"name":"JS_MIRROR_x","deliver_subject":"mirror.a.m.M.x","ack_policy":"none","deliver_policy":"all","max_deliver":1,"inactive_threshold":30000000000}}`)
	time.Sleep(time.Second)
	t.Log(l.got, l.errs, l.closed())
}
