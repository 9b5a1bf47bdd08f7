package edge

import (
	"bytes"
	"io"

	"github.com/gobwas/httphead"
	"github.com/gobwas/ws/wsflate"
	"github.com/klauspost/compress/flate"
	"github.com/stockmesh/stockmesh/protocol"
)

const (
	deflateLevel = 1
	// deflateBytesMin is the payload from which on compressing is tried.
	deflateBytesMin = 128
	windowBytes     = 32 << 10
	windowBitsMax   = 15

	// finalsMax bounds the final blocks inside one message: after each the
	// decompressor starts anew, which costs more than a block's two bytes tell.
	finalsMax = 16
)

// deflateTail is what RFC 7692 takes off the end of a message, and a final block,
// so that a message that is whole ends in io.EOF.
const deflateTail = "\x00\x00\xff\xff\x01\x00\x00\xff\xff"

// negotiateDeflate returns the choice among one client's offers of
// permessage-deflate, of which the first that can be served is taken. No context
// is ever taken over, so a connection keeps no window. wsflate.Extension, which
// would choose, takes small windows that it can't keep to and refuses large ones.
func negotiateDeflate() func(httphead.Option) (httphead.Option, error) {
	chosen := false
	return func(offer httphead.Option) (answer httphead.Option, _ error) {
		var p wsflate.Parameters
		if chosen || string(offer.Name) != wsflate.ExtensionName || p.Parse(offer) != nil {
			return answer, nil // declined
		}
		if p.ServerMaxWindowBits.Defined() && p.ServerMaxWindowBits != windowBitsMax {
			return answer, nil // one frame goes to all, compressed with the full window
		}
		chosen = true
		// A client_max_window_bits says what the client could do with: it need not
		// be answered, for a window of any size can be read here.
		return wsflate.Parameters{
			ServerNoContextTakeover: true, ClientNoContextTakeover: true, ServerMaxWindowBits: p.ServerMaxWindowBits,
		}.Option(), nil
	}
}

// deflater compresses the messages of a loop's connections, one after the other.
type deflater struct {
	writer *flate.Writer // nil until the first message
	plain  []byte
	packed bytes.Buffer
}

// appendMessage appends a frame whose payload write appends, compressed where that
// makes it smaller.
func (d *deflater) appendMessage(b []byte, op byte, write func([]byte) []byte) []byte {
	d.plain = write(d.plain[:0])
	if len(d.plain) >= deflateBytesMin {
		if packed := d.pack(); len(packed) < len(d.plain) {
			return appendFrame(b, op|rsv1, packed)
		}
	}
	return appendFrame(b, op, d.plain)
}

// pack compresses d.plain. The result is good until the next call.
func (d *deflater) pack() []byte {
	d.packed.Reset()
	if d.writer == nil {
		// It fails for a level that doesn't exist only.
		d.writer, _ = flate.NewWriter(&d.packed, deflateLevel)
	} else {
		d.writer.Reset(&d.packed)
	}
	// Neither fails, as the buffer doesn't.
	_, _ = d.writer.Write(d.plain)
	_ = d.writer.Flush()
	return bytes.TrimSuffix(d.packed.Bytes(), []byte(deflateTail[:4]))
}

// inflater decompresses the messages of a loop's connections, one after the other.
type inflater struct {
	reader io.ReadCloser // nil until the first message
	source bytes.Reader
	in     []byte // a message and deflateTail
	out    []byte
}

var errInflated = &fault{protocol.CloseTooLarge, "message is larger than its limit when decompressed"}

// inflate decompresses a message, which is good until the next call. It reads one
// byte past the limit and no further.
func (f *inflater) inflate(payload []byte, limit int) ([]byte, *fault) {
	if f.reader == nil {
		f.reader = flate.NewReader(&f.source)
	}
	if cap(f.out) <= limit {
		f.out = make([]byte, 0, limit+1)
	}
	f.in = append(append(f.in[:0], payload...), deflateTail...)
	f.source.Reset(f.in)
	f.out = f.out[:0]
	for range finalsMax {
		if bad := f.stream(limit); bad != nil {
			return nil, bad
		}
		if f.source.Len() == 0 {
			return f.out, nil
		}
	}
	return nil, &fault{protocol.CloseTooLarge, "message has too many final blocks"}
}

// stream decompresses up to the end of a final block, after which others may
// follow and look back at what came before.
func (f *inflater) stream(limit int) *fault {
	window := f.out[max(0, len(f.out)-windowBytes):]
	err := f.reader.(flate.Resetter).Reset(&f.source, window)
	for err == nil && len(f.out) <= limit {
		var n int
		n, err = f.reader.Read(f.out[len(f.out) : limit+1])
		f.out = f.out[:len(f.out)+n]
	}
	switch {
	case len(f.out) > limit:
		return errInflated
	case err != io.EOF:
		return &fault{protocol.CloseInvalidPayload, "compressed data is corrupt"}
	}
	return nil
}
