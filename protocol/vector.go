package protocol

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Component is one region's part of a Vector. In a cursor of a region that has several
// logs each has one: "eu" is the first log's, "eu.1" the second's.
type Component struct {
	Region string
	N      uint64
}

// Vector is a version or a cursor: a count per region, ordered by region name.
// Its wire form is "eu:12,us:4"; the empty vector is "". Equal states have equal
// strings.
type Vector []Component

// ParseVector reads the wire form. It is strict: regions in order, no zeroes, no
// leading zeroes, so that two strings are equal exactly when the vectors are.
func ParseVector(s string) (Vector, error) {
	if s == "" {
		return nil, nil
	}
	v := make(Vector, 0, strings.Count(s, ",")+1)
	for part := range strings.SplitSeq(s, ",") {
		region, digits, ok := strings.Cut(part, ":")
		if !ok || !componentName(region) {
			return nil, fmt.Errorf("%q is not a version: want region:number joined by commas", s)
		}
		n, err := strconv.ParseUint(digits, 10, 64)
		if err != nil || n == 0 || digits[0] == '0' || digits[0] == '+' {
			return nil, fmt.Errorf("%q is not a version: %q is not a positive number", s, digits)
		}
		if len(v) > 0 && v[len(v)-1].Region >= region {
			return nil, fmt.Errorf("%q is not a version: regions must be in order, each once", s)
		}
		v = append(v, Component{region, n})
	}
	return v, nil
}

// componentName reports whether s is a region, or a region and the number of one of its
// further logs.
func componentName(s string) bool {
	region, log, several := strings.Cut(s, ".")
	if several {
		n, err := strconv.ParseUint(log, 10, 16)
		if err != nil || n == 0 || log[0] == '0' || log[0] == '+' {
			return false
		}
	}
	return CheckRegion("region", region) == nil
}

// String returns the wire form.
func (v Vector) String() string { return string(v.Append(nil)) }

// Append appends the wire form to b.
func (v Vector) Append(b []byte) []byte {
	for i, c := range v {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, c.Region...)
		b = append(b, ':')
		b = strconv.AppendUint(b, c.N, 10)
	}
	return b
}

// Get returns the region's component, 0 if it has none.
func (v Vector) Get(region string) uint64 {
	for _, c := range v {
		if c.Region == region {
			return c.N
		}
	}
	return 0
}

// AtLeast reports whether every component of v is >= w's.
func (v Vector) AtLeast(w Vector) bool {
	for _, c := range w {
		if v.Get(c.Region) < c.N {
			return false
		}
	}
	return true
}

// Reaches reports whether a node with the cursor have has what a client with the cursor
// seen was shown elsewhere. Logs that the node knows nothing of don't count: their region
// may be gone.
func Reaches(have, seen Vector) bool {
	for _, c := range seen {
		if n := have.Get(c.Region); n > 0 && n < c.N {
			return false
		}
	}
	return true
}

// With returns v with the region's component set to n; v is left as it was.
func (v Vector) With(region string, n uint64) Vector {
	i, found := slices.BinarySearchFunc(v, region, func(c Component, r string) int {
		return strings.Compare(c.Region, r)
	})
	w := slices.Clone(v)
	if found {
		w[i].N = n
		return w
	}
	return slices.Insert(w, i, Component{region, n})
}
