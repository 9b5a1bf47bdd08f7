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
// A node is a process of its own: the test binary, which Main turns into a node where
// the parent asks for it. So nodes can be killed and paused. InGoroutines keeps them in
// the test's process instead. WithProxies leads the routes between nodes through the
// test, which can cut them.
//
// Methods that fail the test must be called from the test's goroutine. All that was
// started ends with the test; a node also ends when the test's process does.
//
// It knows a node by its ports only: commands, GET /v1/mesh, /readyz and what it logs.
package clustertest
