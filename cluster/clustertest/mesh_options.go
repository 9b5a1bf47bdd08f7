package clustertest

// meshSetup is what the options of StartMesh say.
type meshSetup struct {
	regions       []string
	nodes, shards int
	proxied       bool
	spaces        bool
	flags         []string
}

// MeshOption changes how StartMesh builds a mesh.
type MeshOption func(*meshSetup)

// Regions are the names of the regions. Without it eu, us and asia.
func Regions(names ...string) MeshOption {
	return func(s *meshSetup) { s.regions = names }
}

// NodesEach is how many nodes each region has: 1, 3 or 5. Without it 1.
func NodesEach(n int) MeshOption { return func(s *meshSetup) { s.nodes = n } }

// ShardsEach is how many logs each region has. Without it 1.
func ShardsEach(n int) MeshOption { return func(s *meshSetup) { s.shards = n } }

// MeshProxies leads the links between regions through the test, for Cut, Slow and the
// like. Each pair of a dialling region and a listening node has a proxy of its own, so
// that nothing in the links has to be read.
func MeshProxies() MeshOption { return func(s *meshSetup) { s.proxied = true } }

// Namespaces gives each region a network namespace and addresses of its own; Isolate,
// CutAll and Heal pull and plug its cable to the other regions, membership included,
// while its clients still reach it. See CanSplit.
func Namespaces() MeshOption { return func(s *meshSetup) { s.spaces = true } }

// MeshFlags are given to each node as on its command line.
func MeshFlags(flags ...string) MeshOption {
	return func(s *meshSetup) { s.flags = append(s.flags, flags...) }
}
