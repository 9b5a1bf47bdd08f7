package relay

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// errMalformed is wrapped by every error of decoding, but for another format.
var errMalformed = errors.New("malformed")

func appendString[T ~string](b []byte, s T) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// reader reads a message. The first error sticks, after which every read gives
// zero; so a caller checks once, at the end. What it accepts has one form only:
// written again it gives the same bytes.
type reader struct {
	b   []byte
	err error

	// text is one copy of the whole message, which strings share once it is set.
	text string
}

// own makes the strings read from now on share one copy of the message, which
// begins with data.
func (r *reader) own(data []byte) { r.text = string(data) }

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", errMalformed, what)
	}
	r.b = nil
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail("ends early")
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) bool() bool {
	v := r.byte()
	if v > 1 {
		r.fail("bad flag")
	}
	return v == 1
}

func (r *reader) uint() uint64 {
	if len(r.b) > 0 && r.b[0] < 0x80 { // most are
		v := uint64(r.b[0])
		r.b = r.b[1:]
		return v
	}
	v, n := binary.Uvarint(r.b)
	if n <= 0 || r.b[n-1] == 0 {
		r.fail("bad number")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int() int64 {
	v := r.uint()
	return int64(v>>1) ^ -int64(v&1)
}

func (r *reader) fixed32() uint32 {
	if len(r.b) < 4 {
		r.fail("ends early")
		return 0
	}
	v := binary.LittleEndian.Uint32(r.b)
	r.b = r.b[4:]
	return v
}

func (r *reader) string() string {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.fail("length beyond the end")
		return ""
	}
	v := r.b[:n]
	r.b = r.b[n:]
	if r.text == "" {
		return string(v)
	}
	end := len(r.text) - len(r.b)
	return r.text[end-len(v) : end]
}

// count checks the length of a list whose elements take at least size bytes each,
// so that a damaged length can't ask for more memory than the input justifies.
func (r *reader) count(n uint64, size int) int {
	if n > uint64(len(r.b)/size) {
		r.fail("count beyond the end")
		return 0
	}
	return int(n)
}

// format reads the first byte, which tells the message and its version.
func (r *reader) format(want byte, what string) {
	if f := r.byte(); f != want && r.err == nil {
		r.b, r.err = nil, unknownFormat(what, f, "%#x", want)
	}
}

// unknownFormat is the error of what only another version of stockmesh can read.
func unknownFormat(what string, f byte, read string, formats ...any) error {
	return fmt.Errorf("%s of format %#x, this version reads %s: the nodes run different versions, upgrade those of the older one", what, f, fmt.Sprintf(read, formats...))
}

func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.fail("bytes after the end")
	}
	return r.err
}

// carve takes n elements from a larger piece, so that many small lists cost few
// allocations. left is how many more the rest of the input may hold at most: a
// new piece is no larger than that.
func carve[T any](free *[]T, n, left int) []T {
	const piece = 64
	if len(*free) < n {
		*free = make([]T, max(n, min(piece, left)))
	}
	v := (*free)[:n:n]
	*free = (*free)[n:]
	return v
}
