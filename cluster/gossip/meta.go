package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/hashicorp/memberlist"
)

// Meta is what a node tells the others about itself. Encoded it must fit into
// some 500 bytes: a Meta with long names is refused with [ErrMeta], not cut.
//
// Whoever holds the gossip key can say anything here, so it may inform, and
// suggest addresses; nothing may be granted on its word.
type Meta struct {
	Region      string
	Route       string // host:port of the node's cluster route listener; between regions, of its link listener
	Endpoint    string // public URL for clients
	State       string // starting, catching_up, serving, draining, no_quorum
	Connections int    // clients connected; not negative
	Owns        []int  // shards it decides for, 0 to 4095; others receive it sorted
	Shards      int    // shards the region has; not negative
	Founded     string // incarnation of the region's data this node holds, "" = empty disk
	Peers       string // names, joined by commas, of the nodes that hold the region's data
	WAN         string // host:port of the node's gossip between regions
	Links       string // REGION=host:port joined by commas: what that region's nodes dial instead of Route
	Batches     int    // newest format of relayed commands that the node reads; 0: it does not say
}

// LinkFor returns the host:port by which nodes of region link to this node, "" where it
// told none.
func (m Meta) LinkFor(region string) string {
	for part := range strings.SplitSeq(m.Links, ",") {
		if name, addr, ok := strings.Cut(part, "="); ok && name == region {
			return addr
		}
	}
	return m.Route
}

// ErrMeta is returned by Open and Update for a Meta that can't be told to the
// others: it is too long, or has a number out of range. Nothing has changed.
var ErrMeta = errors.New("gossip: meta can't be sent")

var errGarbled = errors.New("gossip: meta is garbled")

// On the wire a Meta is the byte metaFormat, then fields: tag, length of the
// value, value, the first two as uvarints. A field that is empty or zero is left
// out; one with an unknown tag is skipped, so newer nodes may add tags. A tag is
// never used for something else.
const (
	metaFormat = 1

	tagRegion      = 1
	tagRoute       = 2
	tagEndpoint    = 3
	tagState       = 4
	tagConnections = 5 // uvarint
	tagOwns        = 6 // bitmap: shard s is bit s%8 of byte s/8; no zero byte at the end
	tagShards      = 7 // uvarint
	tagFounded     = 8
	tagLeaving     = 9 // no value: when this node is gone, it has left and not failed
	tagPeers       = 10
	tagWAN         = 11
	tagLinks       = 12
	tagBatches     = 13 // uvarint

	leavingBytes = 2
	// Room is kept for the mark, or a node with a full Meta could not leave.
	metaBytesMax = memberlist.MetaMaxSize - leavingBytes
	shardMax     = 8*memberlist.MetaMaxSize - 1
)

// encode returns the wire form, or an error that wraps ErrMeta.
func (m Meta) encode() ([]byte, error) {
	owns, err := bitmap(m.Owns)
	if err != nil {
		return nil, err
	}
	if !inRange(m.Connections) || !inRange(m.Shards) || !inRange(m.Batches) {
		return nil, fmt.Errorf("%w: %d connections, %d shards, batches %d: not within 0 and 2^31-1", ErrMeta, m.Connections, m.Shards, m.Batches)
	}
	b := []byte{metaFormat}
	b = appendField(b, tagRegion, []byte(m.Region))
	b = appendField(b, tagRoute, []byte(m.Route))
	b = appendField(b, tagEndpoint, []byte(m.Endpoint))
	b = appendField(b, tagState, []byte(m.State))
	b = appendField(b, tagConnections, uvarint(m.Connections))
	b = appendField(b, tagOwns, owns)
	b = appendField(b, tagShards, uvarint(m.Shards))
	b = appendField(b, tagFounded, []byte(m.Founded))
	b = appendField(b, tagPeers, []byte(m.Peers))
	b = appendField(b, tagWAN, []byte(m.WAN))
	b = appendField(b, tagLinks, []byte(m.Links))
	b = appendField(b, tagBatches, uvarint(m.Batches))
	if len(b) > metaBytesMax {
		return nil, fmt.Errorf("%w: %d bytes, at most %d; use shorter names: region %d, route %d, endpoint %d, state %d, founded %d, peers %d, WAN %d, links %d bytes",
			ErrMeta, len(b), metaBytesMax, len(m.Region), len(m.Route), len(m.Endpoint), len(m.State), len(m.Founded), len(m.Peers), len(m.WAN), len(m.Links))
	}
	return b, nil
}

// asLeaving adds the leaving mark to an encoded Meta.
func asLeaving(encoded []byte) []byte {
	return append(encoded[:len(encoded):len(encoded)], tagLeaving, 0)
}

func appendField(b []byte, tag uint64, value []byte) []byte {
	if len(value) == 0 {
		return b
	}
	b = binary.AppendUvarint(b, tag)
	b = binary.AppendUvarint(b, uint64(len(value)))
	return append(b, value...)
}

func uvarint(n int) []byte {
	if n == 0 {
		return nil
	}
	return binary.AppendUvarint(nil, uint64(n))
}

func bitmap(shards []int) ([]byte, error) {
	var b []byte
	for _, s := range shards {
		if s < 0 || s > shardMax {
			return nil, fmt.Errorf("%w: shard %d is not within 0 and %d", ErrMeta, s, shardMax)
		}
		for len(b) <= s/8 {
			b = append(b, 0)
		}
		b[s/8] |= 1 << (s % 8)
	}
	return b, nil
}

// decodeMeta reads what another node, or anybody on the network, has sent.
func decodeMeta(b []byte) (m Meta, leaving bool, err error) {
	if len(b) == 0 || b[0] != metaFormat {
		return Meta{}, false, fmt.Errorf("%w: unknown format", errGarbled)
	}
	for b = b[1:]; len(b) > 0; {
		var tag uint64
		var value []byte
		if tag, value, b, err = cutField(b); err != nil {
			return Meta{}, false, err
		}
		if tag == tagLeaving {
			leaving = true
		} else if err = m.set(tag, value); err != nil {
			return Meta{}, false, err
		}
	}
	return m, leaving, nil
}

func cutField(b []byte) (tag uint64, value, rest []byte, err error) {
	tag, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, nil, fmt.Errorf("%w: tag", errGarbled)
	}
	b = b[n:]
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return 0, nil, nil, fmt.Errorf("%w: length of field %d", errGarbled, tag)
	}
	b = b[n:]
	return tag, b[:size], b[size:], nil
}

func (m *Meta) set(tag uint64, value []byte) (err error) {
	switch tag {
	case tagRegion:
		m.Region = string(value)
	case tagRoute:
		m.Route = string(value)
	case tagEndpoint:
		m.Endpoint = string(value)
	case tagState:
		m.State = string(value)
	case tagConnections:
		m.Connections, err = number(value)
	case tagOwns:
		m.Owns, err = shards(value)
	case tagShards:
		m.Shards, err = number(value)
	case tagFounded:
		m.Founded = string(value)
	case tagPeers:
		m.Peers = string(value)
	case tagWAN:
		m.WAN = string(value)
	case tagLinks:
		m.Links = string(value)
	case tagBatches:
		m.Batches, err = number(value)
	}
	return err
}

func number(value []byte) (int, error) {
	v, n := binary.Uvarint(value)
	if n <= 0 || n != len(value) || v > math.MaxInt32 {
		return 0, fmt.Errorf("%w: number %x", errGarbled, value)
	}
	return int(v), nil
}

func shards(bits []byte) ([]int, error) {
	if len(bits) > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("%w: %d bytes of shards", errGarbled, len(bits))
	}
	var out []int
	for i := range 8 * len(bits) {
		if bits[i/8]&(1<<(i%8)) != 0 {
			out = append(out, i)
		}
	}
	return out, nil
}

func inRange(n int) bool { return n >= 0 && n <= math.MaxInt32 }
