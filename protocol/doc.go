// Package protocol is the stockmesh wire contract, version 1: the messages that
// clients and nodes exchange, their codes and limits, and their JSON and CBOR
// forms, between which Codec chooses.
//
// It does no I/O, reads no clock and starts no goroutine, so the edge, the HTTP
// interface, the ledger and every client share one meaning of each field. The
// full text of the contract is README.md beside this file.
package protocol

// Subprotocols of GET /v1/ws.
const (
	SubprotocolJSON = "stockmesh.v1.json"
	SubprotocolCBOR = "stockmesh.v1.cbor"
	ProtocolVersion = 1
)

// Limits of version 1. Sizes are bytes, counts are items, durations end in MS.
const (
	MessageBytesMax = 64 << 10 // one WebSocket message, one HTTP body
	BatchBytesMax   = 8 << 20  // the body of POST /v1/batch
	CommandsMax     = 256      // commands of one WebSocket message
	BatchMax        = 5000     // commands of one POST /v1/batch
	LinesMax        = 100      // lines of one reserve or sell
	SelectorsMax    = 10000    // selectors of one connection
	InFlightMax     = 256      // unanswered commands of one connection
	GridMax         = 10000    // SKUs times locations of one get or subscribe
	HistoryMax      = 500      // movements of one history page
	PageMax         = 1000     // items of one stock page
	NameBytesMax    = 128      // sku, location, key, user, reason, reference
	QuantityMax     = 1<<53 - 1

	ReserveMSMin     = 1_000
	ReserveMSDefault = 600_000
	ReserveMSMax     = 14_400_000
	IntervalMSMax    = 3_600_000
	AtLeastWaitMS    = 1_000
)

// DefaultLocation is the location of a line that names none.
const DefaultLocation = "main"
