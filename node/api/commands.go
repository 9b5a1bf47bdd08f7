package api

import (
	"slices"

	"github.com/stockmesh/stockmesh/protocol"
)

// commandDoc is what the documents say about a command: which fields of
// protocol.Command it reads and what it answers. A test holds it to Check.
type commandDoc struct {
	summary  string
	required []string
	optional []string
	ok       any // the Go type of its ok object
	codes    []protocol.Code
}

// fields lists what the command reads, required ones first.
func (d *commandDoc) fields() []string { return slices.Concat(d.required, d.optional) }

func commandDocs() map[protocol.Op]commandDoc {
	read := []protocol.Code{protocol.CodeBadRequest, protocol.CodeUnauthorized, protocol.CodeForbidden,
		protocol.CodeRateLimited, protocol.CodeOverloaded, protocol.CodeUnavailable}
	change := append(slices.Clone(read), protocol.CodeMissingKey, protocol.CodeKeyReused,
		protocol.CodeTooLarge, protocol.CodeRegionUnreachable)
	with := func(codes []protocol.Code, more ...protocol.Code) []protocol.Code { return slices.Concat(codes, more) }
	write := func(more ...string) []string { return append(more, "home", "reason", "reference") }

	selectors := []string{"skus", "prefixes", "all", "locations", "users"}
	ended := []protocol.Code{protocol.CodeNotFound, protocol.CodeReservationEnded}
	conflict := []protocol.Code{protocol.CodeInsufficientStock, protocol.CodeVersionConflict}
	return map[protocol.Op]commandDoc{
		protocol.OpAuth: {"Show a token", []string{"token"}, nil, authReply{}, read},
		protocol.OpSubscribe: {"Watch items, reservations, or both", nil, append(selectors, "since", "have", "interval_ms"),
			subscribedReply{}, with(read, protocol.CodeTooLarge)},
		protocol.OpUnsubscribe: {"End subscriptions: the same selectors, or none for all", nil, selectors,
			emptyReply{}, with(read, protocol.CodeTooLarge)},
		protocol.OpGet: {"Read items", []string{"skus"}, []string{"locations", "at_least"},
			itemsReply{}, with(read, protocol.CodeTooLarge)},
		protocol.OpAdjust: {"Add or remove units", []string{"key", "sku", "delta"}, write("location", "if_version"),
			itemReply{}, with(change, conflict...)},
		protocol.OpCount: {"Take stock: set what is on hand", []string{"key", "sku", "on_hand"}, write("location", "if_version"),
			itemReply{}, with(change, conflict...)},
		protocol.OpReserve: {"Hold units, all lines or none", []string{"key", "lines"}, write("ttl_ms", "user"),
			reservationReply{}, with(change, protocol.CodeInsufficientStock)},
		protocol.OpConfirm: {"Sell what was held", []string{"key", "reservation"}, write(),
			reservationReply{}, with(change, ended...)},
		protocol.OpRelease: {"Give held units back", []string{"key", "reservation"}, write(),
			reservationReply{}, with(change, ended...)},
		protocol.OpExtend: {"Hold longer, counted from now; never shortens", []string{"key", "reservation", "ttl_ms"}, write(),
			reservationReply{}, with(change, ended...)},
		protocol.OpReservation: {"Read a reservation", []string{"reservation"}, nil,
			reservationReply{}, with(read, protocol.CodeNotFound, protocol.CodeRegionUnreachable)},
		protocol.OpSell: {"Sell, all lines or none", []string{"key", "lines"}, write(),
			itemsReply{}, with(change, protocol.CodeInsufficientStock)},
		protocol.OpMove: {"Move units between locations", []string{"key", "sku", "from", "to", "quantity"}, write(),
			itemsReply{}, with(change, protocol.CodeInsufficientStock)},
		protocol.OpConfigure: {"Set an item's limits, at least one of them", []string{"key", "sku"},
			write("location", "safety_stock", "backorder_limit", "low_stock"), itemReply{}, change},
		protocol.OpHistory: {"Read an item's movements, newest first", []string{"sku"},
			[]string{"location", "region", "limit", "before"}, movementsReply{},
			with(read, protocol.CodeNotFound, protocol.CodeRegionUnreachable)},
		protocol.OpOutcome: {"What became of a write, by its key", []string{"key"}, []string{"home"},
			outcomeReply{}, with(read, protocol.CodeNotFound, protocol.CodeRegionUnreachable)},
		protocol.OpPing: {"Nothing, to show life", nil, nil, emptyReply{}, nil},
	}
}

// The types below are shapes of the wire that protocol writes by hand. They are
// here for the documents only; tests hold answers to them.

type emptyReply struct{}

type itemReply struct {
	Item   protocol.Item `json:"item"`
	Behind bool          `json:"behind,omitzero"`
}

type itemsReply struct {
	Items  []protocol.Item `json:"items"`
	Behind bool            `json:"behind,omitzero"`
}

type pageReply struct {
	protocol.Page
	Behind bool `json:"behind,omitzero"`
}

type reservationReply struct {
	Reservation protocol.Reservation `json:"reservation"`
}

type movementsReply struct {
	Movements []protocol.Movement `json:"movements"`
	Next      string              `json:"next"`
}

type outcomeReply struct {
	Known bool         `json:"known"`
	Reply *outcomeKept `json:"reply,omitzero"`
}

type outcomeKept struct {
	OK okObject `json:"ok"`
}

type authReply struct {
	Subject   string        `json:"subject"`
	ExpiresAt protocol.Time `json:"expires_at"`
}

type subscribedReply struct {
	Items  int    `json:"items"`
	Cursor string `json:"cursor"`
}

// okObject stands for the ok object of any command.
type okObject struct{}

// commandID stands for a command's id.
type commandID struct{}

type reply struct {
	ID       commandID       `json:"id"`
	OK       *okObject       `json:"ok,omitzero"`
	Error    *protocol.Error `json:"error,omitzero"`
	Replayed bool            `json:"replayed,omitzero"`
}

type batchReply struct {
	Results []reply `json:"results"`
}

type stockPush struct {
	Op       string          `json:"op"`
	Snapshot bool            `json:"snapshot,omitzero"`
	Items    []protocol.Item `json:"items"`
}

type cursorPush struct {
	Op     string `json:"op"`
	Cursor string `json:"cursor"`
}

type reservationPush struct {
	Op          string               `json:"op"`
	Reservation protocol.Reservation `json:"reservation"`
}
