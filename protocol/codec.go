package protocol

import "github.com/go-json-experiment/json/jsontext"

// Codec is the form that a connection's messages have on the wire. The zero
// value is JSON. Both forms carry the same fields with the same values.
type Codec uint8

// The codecs of version 1.
const (
	JSON Codec = iota // text frames
	CBOR              // binary frames, RFC 8949
)

// Raw is one encoded value, in the codec of the connection it came from.
type Raw = jsontext.Value

// CodecOf returns the codec of a subprotocol's name.
func CodecOf(subprotocol string) (Codec, bool) {
	switch subprotocol {
	case SubprotocolJSON:
		return JSON, true
	case SubprotocolCBOR:
		return CBOR, true
	}
	return JSON, false
}

// Subprotocol returns the name that the codec is agreed on by.
func (c Codec) Subprotocol() string {
	if c == CBOR {
		return SubprotocolCBOR
	}
	return SubprotocolJSON
}

// Split reads a client message as one command or an array of at most limit
// commands and returns each command's own bytes, which alias msg. On an error
// nothing of the message may be done.
func (c Codec) Split(msg []byte, limit int) ([]Raw, *Error) {
	if c == CBOR {
		return splitCBOR(msg, limit)
	}
	return Split(msg, limit)
}

// Decode reads one command, as Split returned it, and checks it. The command's
// ID, in the codec's own bytes, is set even when an error is returned, unless the
// id itself is bad.
func (c Codec) Decode(cmd *Command, v Raw) *Error {
	if c == CBOR {
		return cmd.decodeCBOR(v)
	}
	return cmd.Decode(v)
}

// AppendItem appends an item.
func (c Codec) AppendItem(b []byte, it *Item) []byte {
	if c == CBOR {
		return cborItem(b, it)
	}
	return AppendItem(b, it)
}

// AppendStock appends a stock push of items already encoded by the same codec.
func (c Codec) AppendStock(b []byte, snapshot bool, items ...[]byte) []byte {
	if c == CBOR {
		return cborStock(b, snapshot, items)
	}
	return AppendStock(b, snapshot, items...)
}

// AppendCursor appends a cursor push.
func (c Codec) AppendCursor(b []byte, cursor string) []byte {
	if c == CBOR {
		return cborCursor(b, cursor)
	}
	return AppendCursor(b, cursor)
}

// AppendReservationPush appends a reservation push.
func (c Codec) AppendReservationPush(b []byte, r *Reservation) []byte {
	if c == CBOR {
		return cborReservationPush(b, r)
	}
	return AppendReservationPush(b, r)
}

// AppendReply appends the one reply of a call. The call's ID must have come by
// the same codec.
func (c Codec) AppendReply(b []byte, call *Call) []byte {
	if c == CBOR {
		return cborReply(b, call)
	}
	return AppendReply(b, call)
}

// AppendMessage appends any wire type by its struct tags: for what is sent
// rarely, such as Hello and Goaway. In CBOR a Command goes without its ID.
func (c Codec) AppendMessage(b []byte, v any) []byte {
	if c == CBOR {
		return cborMessage(b, v)
	}
	return AppendJSON(b, v)
}

// Unmarshal reads any wire type. Unknown fields are ignored. In CBOR fields that
// the message leaves out stay as they were in v, and a Command is read without
// its ID; see Decode.
func (c Codec) Unmarshal(b []byte, v any) error {
	if c == CBOR {
		return cborModes.message.Unmarshal(b, v)
	}
	return UnmarshalJSON(b, v)
}
