package clustertest_test

import (
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/cluster/clustertest"
)

// TestKeysRoll: every kind of key of a region is replaced while clients sell. No command
// fails, and what was signed with the old key is refused at the end. The CA of the routes
// is read when a node starts, so it takes two rolling restarts.
func TestKeysRoll(t *testing.T) {
	// The clients' tokens run out several times meanwhile.
	r := clustertest.Start(t, clustertest.Secured(10*time.Second))
	keys := r.Keys()
	shop := r.Shop()
	old := ""
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"publish a token key", keys.AddTokenKey},
		{"sign with it", keys.UseNewTokenKey},
		{"renew the certificates", keys.Recertify},
		{"add a key of the membership", keys.AddGossipKey},
		{"encrypt with it", keys.UseNewGossipKey},
		{"drop the old key of the membership", keys.DropOldGossipKeys},
		{"trust a new CA", func() { keys.AddCA(); rollingRestart(r, shop) }},
		{"certificates of the new CA", keys.Recertify},
		{"drop the old CA", func() { keys.DropOldCAs(); rollingRestart(r, shop) }},
		{"drop the old token key", func() { old = keys.OldToken("old", `[{"do":["watch"]}]`); keys.DropOldTokenKeys() }},
	} {
		shop.AwaitSuccesses(20)
		shop.Mark("%s", step.name)
		step.do()
		r.AwaitKeys()
	}
	r.AwaitRefused(old)
	shop.AwaitSuccesses(50)
	report := shop.Stop()
	t.Log(report)
	report.NothingFailed()
	report.Account()
}

func rollingRestart(r *clustertest.Region, shop *clustertest.Shop) {
	for _, n := range r.Nodes() {
		shop.AwaitSuccesses(50)
		n.Stop()
		n.Start()
		r.AwaitReady()
	}
}
