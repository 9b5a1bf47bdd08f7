package peer

import "strconv"

// Work is what a peer is given to do.
type Work struct {
	ID      string // in names of SKUs and keys, so that runs never meet
	SKUs    int
	Opening int64 // units of each SKU
	Lines   int   // of an order that is reserved, then confirmed or released; 0: plain sells of one unit
}

// releaseEvery is how often an order is released instead of confirmed.
const releaseEvery = 10

// SKU names the i-th.
func (w Work) SKU(i int) string { return "bench-peer-" + w.ID + "-" + strconv.Itoa(i) }

func (w Work) skus() []string {
	names := make([]string, w.SKUs)
	for i := range names {
		names[i] = w.SKU(i)
	}
	return names
}

// order is the n-th of a connection. Which SKUs it names looks random and is evenly
// spread.
func (w Work) order(prefix string, connection int, n uint64) Order {
	at := int(mix(uint64(connection)<<40|n) % uint64(w.SKUs))
	o := Order{Key: prefix + "-" + strconv.Itoa(connection) + "-" + strconv.FormatUint(n, 10)}
	for i := range max(w.Lines, 1) {
		o.Lines = append(o.Lines, Line{SKU: (at + i) % w.SKUs, Quantity: 1})
	}
	return o
}

// mix is the finalizer of splitmix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
