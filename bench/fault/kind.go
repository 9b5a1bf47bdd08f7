package fault

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Kind is what is done to a node, a region or a link.
type Kind string

// The kinds. A node or a region comes back when its fault ends.
const (
	Kill    Kind = "kill"    // a node ends without any warning and is started again
	Stop    Kind = "stop"    // a node stands still and goes on
	Restart Kind = "restart" // a node ends in good order and is started again
	Region  Kind = "region"  // all nodes of a region are killed at once
	Disk    Kind = "disk"    // a node's disk is full
	Cut     Kind = "cut"     // a region loses its links to all others
	Slow    Kind = "slow"    // a link between two regions takes long and carries little
	Oneway  Kind = "oneway"  // a link between two regions carries bytes one way only
	Lossy   Kind = "lossy"   // a link between two regions loses packets
	Clock   Kind = "clock"   // a node's clock is wrong
	Upgrade Kind = "upgrade" // a node runs another version
)

// Kinds lists all of them.
func Kinds() []Kind {
	return []Kind{Kill, Stop, Restart, Region, Disk, Cut, Slow, Oneway, Lossy, Clock, Upgrade}
}

// ParseKinds reads names of kinds; none stands for all.
func ParseKinds(names []string) ([]Kind, error) {
	if len(names) == 0 {
		return Kinds(), nil
	}
	var list []Kind
	for _, name := range names {
		k := Kind(name)
		if !slices.Contains(Kinds(), k) {
			return nil, fmt.Errorf("no fault %q: there are %s", name, joined(Kinds()))
		}
		if !slices.Contains(list, k) {
			list = append(list, k)
		}
	}
	return list, nil
}

func joined(kinds []Kind) string {
	var names []string
	for _, k := range kinds {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}

// place is where a kind of fault happens.
type place int

const (
	atNode   place = iota
	atRegion       // the whole of it
	atBorder       // between a region and all others
	atLink         // between two regions
)

func (k Kind) place() place {
	switch k {
	case Region:
		return atRegion
	case Cut:
		return atBorder
	case Slow, Oneway, Lossy:
		return atLink
	}
	return atNode
}

// Fits reports whether a fault of this kind has a place in a cluster.
func (k Kind) Fits(c Cluster) bool {
	return c.Regions > 1 || k.place() == atNode || k.place() == atRegion
}

// lengths are the shortest and the longest time that a fault of a kind lasts in a long
// plan.
func (k Kind) lengths() (low, high time.Duration) {
	switch k {
	case Kill, Restart:
		return 200 * time.Millisecond, 5 * time.Second
	case Stop:
		return time.Second, 10 * time.Second
	case Region:
		return time.Second, 6 * time.Second
	case Disk:
		return 3 * time.Second, 8 * time.Second
	case Clock, Upgrade:
		return 5 * time.Second, 20 * time.Second
	}
	return 2 * time.Second, 12 * time.Second
}
