package protocol

import (
	"bytes"
	"errors"
	"unicode/utf8"
)

// Bounds of a client's CBOR. A command nests three deep and has fewer than forty
// fields; the rest is room for fields of later versions, which are skipped.
const (
	cborDepthMax  = 16
	cborFieldsMax = 64 // of a map and those it stands in
)

var (
	errCBORCut      = errors.New("it ends too early")
	errCBORMore     = errors.New("something follows the value")
	errCBORHead     = errors.New("a reserved or misplaced head")
	errCBORUTF8     = errors.New("text is not valid UTF-8")
	errCBORChunks   = errors.New("a string in chunks")
	errCBORName     = errors.New("a field's name is not text")
	errCBORTwice    = errors.New("duplicate field")
	errCBORFields   = errors.New("a map of too many fields")
	errCBORDepth    = errors.New("nested too deeply")
	errCBORTag      = errors.New("a tag")
	errCBORSimple   = errors.New("an unknown simple value")
	errCBORInfinite = errors.New("a number that is not finite")
)

// cborScanner reads a client's bytes once before anything is made of them, so
// that the two codecs refuse the same: RFC 8949's well-formed and valid data in
// the part that JSON can express, byte strings (in fields nobody knows) apart.
// The decoder proper would let pass what is wrong in fields it skips.
type cborScanner struct {
	b     []byte
	at    int
	id    []byte                  // the value of the outermost map's field of that name
	names [cborFieldsMax]cborSeen // of the maps that are open, the inner ones last
	open  int                     // how many those are
}

// cborSeen is a name that was read: its length and first bytes, by which most
// names differ, and where it stands.
type cborSeen struct {
	start    uint64
	from, to uint32
}

type cborStart struct {
	major byte
	info  byte
	n     uint64
}

const cborIndefinite = 31

func (s *cborScanner) head() (h cborStart, err error) {
	if s.at == len(s.b) {
		return h, errCBORCut
	}
	h.major, h.info = s.b[s.at]&^31, s.b[s.at]&31
	s.at++
	switch {
	case h.info < 24:
		h.n = uint64(h.info)
	case h.info < 28:
		size := 1 << (h.info - 24)
		if len(s.b)-s.at < size {
			return h, errCBORCut
		}
		for _, c := range s.b[s.at : s.at+size] {
			h.n = h.n<<8 | uint64(c)
		}
		s.at += size
	case h.info < cborIndefinite || h.major < cborBytes || h.major > cborMap:
		return h, errCBORHead
	}
	return h, nil
}

// more reports whether an array or map has an element number i.
func (s *cborScanner) more(h cborStart, i uint64) bool {
	if h.info != cborIndefinite {
		return i < h.n
	}
	if s.at < len(s.b) && s.b[s.at] == cborBreak {
		s.at++
		return false
	}
	return true
}

// whole reads all there is as one value.
func (s *cborScanner) whole() error {
	if err := s.value(1); err != nil {
		return err
	}
	if s.at != len(s.b) {
		return errCBORMore
	}
	return nil
}

// value reads one value that stands in depth-1 others.
func (s *cborScanner) value(depth int) error {
	h, err := s.head()
	if err != nil {
		return err
	}
	switch h.major {
	case cborUint, cborNeg:
		return nil
	case cborBytes:
		_, err = s.str(h)
		return err
	case cborString:
		_, err = s.text(h)
		return err
	case cborTag:
		return errCBORTag
	case cborOther:
		return checkSimple(h)
	}
	if depth > cborDepthMax {
		return errCBORDepth
	}
	if h.major == cborMap {
		return s.fields(h, depth)
	}
	for i := uint64(0); s.more(h, i); i++ {
		if err := s.value(depth + 1); err != nil {
			return err
		}
	}
	return nil
}

func (s *cborScanner) fields(h cborStart, depth int) error {
	outer := s.open
	for i := uint64(0); s.more(h, i); i++ {
		name, err := s.name()
		if err != nil {
			return err
		}
		if err := s.remember(name, outer); err != nil {
			return err
		}
		start := s.at
		if err := s.value(depth + 1); err != nil {
			return err
		}
		if depth == 1 && string(name) == "id" {
			s.id = s.b[start:s.at]
		}
	}
	s.open = outer
	return nil
}

// remember adds the name just read to those of its map, which start at outer.
// They are few enough to compare each with each, which needs no memory.
func (s *cborScanner) remember(name []byte, outer int) error {
	start := uint64(len(name))
	for _, c := range name[:min(len(name), 7)] {
		start = start<<8 | uint64(c)
	}
	for i := outer; i < s.open; i++ {
		other := &s.names[i]
		if other.start == start && bytes.Equal(name, s.b[other.from:other.to]) {
			return errCBORTwice
		}
	}
	if s.open == cborFieldsMax {
		return errCBORFields
	}
	s.names[s.open] = cborSeen{start, uint32(s.at - len(name)), uint32(s.at)}
	s.open++
	return nil
}

func (s *cborScanner) name() ([]byte, error) {
	h, err := s.head()
	if err != nil {
		return nil, err
	}
	if h.major != cborString {
		return nil, errCBORName
	}
	return s.text(h)
}

func (s *cborScanner) text(h cborStart) ([]byte, error) {
	v, err := s.str(h)
	if err == nil && !utf8.Valid(v) {
		err = errCBORUTF8
	}
	return v, err
}

func (s *cborScanner) str(h cborStart) ([]byte, error) {
	if h.info == cborIndefinite {
		return nil, errCBORChunks
	}
	if h.n > uint64(len(s.b)-s.at) {
		return nil, errCBORCut
	}
	v := s.b[s.at : s.at+int(h.n)]
	s.at += len(v)
	return v, nil
}

func checkSimple(h cborStart) error {
	infinite := uint64(0) // the exponent's bits
	switch h.info {
	case cborFalse &^ cborOther, cborTrue &^ cborOther, cborNull &^ cborOther, cborUndefined &^ cborOther:
		return nil
	case 25:
		infinite = 0x1f << 10
	case 26:
		infinite = 0xff << 23
	case 27:
		infinite = 0x7ff << 52
	default:
		return errCBORSimple
	}
	if h.n&infinite == infinite {
		return errCBORInfinite
	}
	return nil
}
