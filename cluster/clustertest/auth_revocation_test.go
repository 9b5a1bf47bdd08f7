package clustertest_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/cluster/clustertest"
	"github.com/stockmesh/stockmesh/protocol"
)

// TestRevocation: what is revoked at one node is refused by all, at once and after each
// of them was restarted. Who sold, and from where, is told by all of them too.
func TestRevocation(t *testing.T) {
	r := clustertest.Start(t, clustertest.Secured(time.Hour))
	v, nodes := newVisitor(t, r.Keys()), r.Nodes()
	lost, bob, carol := r.Keys().Token("anna", anyStock), r.Keys().Token("bob", anyStock), r.Keys().Token("carol", anyStock)
	withLost, bobs, carols := v.openAll(nodes, lost), v.openAll(nodes, bob), v.openAll(nodes, carol)
	if code := carols[0].do(`{"op":"adjust","key":"carol-1","sku":"A","delta":9}`); code != "ok" {
		t.Fatal(code)
	}

	v.revoke(nodes[0], `{"token_id":%q}`, v.idOf(lost))
	awaitClosed(t, withLost, 4001, goneWithin)
	v.refused(lost, nodes...)
	if err := v.lets(nodes[1], r.Keys().Token("anna", anyStock)); err != nil {
		t.Errorf("another token of the same subject: %v", err)
	}

	v.revoke(nodes[1], `{"subject":"bob"}`)
	awaitClosed(t, bobs, 4001, goneWithin)
	v.refused(bob, nodes...)
	eventually(t, "a token issued later to be taken", hang, func() error {
		return v.lets(nodes[2], r.Keys().Token("bob", anyStock))
	})
	v.revoke(nodes[2], `{"subject":"carol","before":%q}`, time.Now().Add(-time.Hour).UTC().Format(time.RFC3339))
	for _, s := range carols {
		if code := s.do(`{"op":"get","skus":["A"]}`); code != "ok" {
			t.Errorf("%s: somebody else's session: %s", s.node, code)
		}
	}

	r.AwaitConverged()
	v.historyNames(nodes, "carol")
	for _, n := range nodes {
		n.Stop()
		n.Start()
		v.neverLetIn(n, lost, bob)
		r.AwaitReady()
	}
	v.refused(lost, nodes...)
	v.refused(bob, nodes...)
	v.historyNames(nodes, "carol")
	awaitClosed(t, carols, 4200, goneWithin) // sent away as their nodes stopped
	for _, n := range nodes {
		if err := v.lets(n, carol); err != nil {
			t.Errorf("%s: %v", n, err)
		}
	}
}

// neverLetIn asks a node that starts until it is ready: at no moment may it have
// forgotten what was revoked.
func (v *visitor) neverLetIn(n *clustertest.Node, tokens ...string) {
	v.t.Helper()
	eventually(v.t, n.Name+" to be ready", 2*hang, func() error {
		ready := error(nil)
		if !n.Ready() {
			ready = http.ErrServerClosed
		}
		for _, token := range tokens {
			if status, _, err := v.ask(http.MethodGet, n.HTTP+"/v1/stock", token, ""); err == nil && status == http.StatusOK {
				v.t.Errorf("%s took a token that was revoked before it started", n)
			}
		}
		return ready
	})
}

// historyNames checks who a node says has changed the item A.
func (v *visitor) historyNames(nodes []*clustertest.Node, subject string) {
	v.t.Helper()
	for _, n := range nodes {
		status, answer, err := v.ask(http.MethodGet, n.HTTP+"/v1/stock/A/history", v.keys.Token("auditor", anyStock), "")
		var page struct {
			Movements []protocol.Movement `json:"movements"`
		}
		if err == nil {
			err = json.Unmarshal([]byte(answer), &page)
		}
		if err != nil || status != http.StatusOK || len(page.Movements) != 1 {
			v.t.Errorf("%s: %d %s %v", n, status, answer, err)
			continue
		}
		if m := page.Movements[0]; m.Subject != subject || m.Address != "127.0.0.1" || m.Key != "carol-1" {
			v.t.Errorf("%s: %+v", n, m)
		}
	}
}

// TestMeshRevocation: other regions hear of it, also one that was cut off when it
// happened, and keep it.
func TestMeshRevocation(t *testing.T) {
	m := clustertest.BuildMesh(t, clustertest.Regions("eu", "us"), clustertest.MeshProxies())
	keys := m.Secure(time.Hour)
	for _, n := range m.Nodes() {
		n.Start()
	}
	for _, r := range m.Regions() {
		r.AwaitReady()
	}
	m.AwaitLinked()
	v, nodes := newVisitor(t, keys), m.Nodes()
	eu, us := nodes[0], nodes[1]
	first, second := keys.Token("anna", anyStock), keys.Token("bob", anyStock)

	sessions := v.openAll(nodes, first)
	v.revoke(eu, `{"token_id":%q}`, v.idOf(first))
	awaitClosed(t, sessions, 4001, goneWithin)
	v.refused(first, nodes...)

	here, there := v.open(eu, second), v.open(us, second)
	m.Cut("eu", "us")
	m.AwaitCutOff("eu", "us")
	v.revoke(eu, `{"subject":"bob"}`)
	awaitClosed(t, []*session{here}, 4001, goneWithin)
	v.refused(second, eu)
	if code := there.do(`{"op":"get","skus":["A"]}`); code != "ok" { // nobody could tell it
		t.Errorf("us: %s", code)
	}
	m.Heal()
	awaitClosed(t, []*session{there}, 4001, 2*hang) // the link must come back first
	v.refused(second, nodes...)

	us.Stop()
	us.Start()
	v.neverLetIn(us, first, second)
	v.refused(first, us)
	v.refused(second, us)
}
