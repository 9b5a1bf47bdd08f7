// Package clustertest starts regions on this machine for tests, breaks them, and
// keeps account of what they promised:
//
//	func TestMain(m *testing.M) { clustertest.Main(m) }
//
//	r := clustertest.Start(t, clustertest.Nodes(3))
//	shop := r.Shop(clustertest.Clients(16))
//	r.Owner(0).Kill()
//	report := shop.Stop()
//	report.NothingFailed()
//	report.Account()
//
// StartMesh does the same with several regions:
//
//	m := clustertest.StartMesh(t, clustertest.Regions("eu", "us"), clustertest.MeshProxies())
//	shop := m.Shop()
//	m.Cut("eu", "us")
//	shop.RunFor(time.Minute)
//	m.Heal()
//	report := shop.Stop() // waits until all nodes of all regions show the same
//	report.Account()
//
// A node is a process of its own: the test binary, which Main turns into a node where
// the parent asks for it. So nodes can be killed and paused. InGoroutines keeps them in
// the test's process instead. WithProxies leads the routes between nodes through the
// test, which can cut them. MeshProxies does so with the links between regions, though not
// with the membership between them; with Namespaces each region has a network of its own,
// where that is cut too.
//
// Methods that fail the test must be called from the test's goroutine. All that was
// started ends with the test; a node also ends when the test's process does.
//
// It knows a node by its ports only: commands, GET /v1/mesh, /readyz and what it logs.
package clustertest
