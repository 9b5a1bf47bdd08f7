package protocol

import (
	"github.com/go-json-experiment/json"
)

// Hello is the first message of a node on a connection.
type Hello struct {
	Op          string   `json:"op"` // "hello"
	Session     string   `json:"session"`
	Node        string   `json:"node"`
	Region      string   `json:"region"`
	Protocol    int      `json:"protocol"`
	HeartbeatMS int64    `json:"heartbeat_ms"`
	Endpoints   []string `json:"endpoints"`
	Limits      Limits   `json:"limits"`
}

// Limits are the bounds a node keeps for a connection.
type Limits struct {
	MessageBytes  int `json:"message_bytes"`
	Subscriptions int `json:"subscriptions"`
	InFlight      int `json:"in_flight"`
}

// Goaway tells a client to move to another node before this one closes.
type Goaway struct {
	Op         string   `json:"op"` // "goaway"
	Reason     string   `json:"reason"`
	DeadlineMS int64    `json:"deadline_ms"`
	Endpoints  []string `json:"endpoints"`
}

// AppendJSON appends the JSON of any wire type by its struct tags: for what is
// sent rarely.
func AppendJSON(b []byte, v any) []byte {
	j, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		// Wire types hold only strings, numbers and lists of them.
		panic("protocol: marshal: " + err.Error())
	}
	return append(b, j...)
}

// UnmarshalJSON reads any wire type. Unknown fields are ignored.
func UnmarshalJSON(b []byte, v any) error { return json.Unmarshal(b, v) }

// AppendStock appends a stock push of items already encoded by AppendItem.
func AppendStock(b []byte, snapshot bool, items ...[]byte) []byte {
	b = append(b, `{"op":"stock",`...)
	if snapshot {
		b = append(b, `"snapshot":true,`...)
	}
	b = append(b, `"items":[`...)
	for i, it := range items {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, it...)
	}
	return append(b, "]}"...)
}

// AppendCursor appends a cursor push.
func AppendCursor(b []byte, cursor string) []byte {
	b = append(b, `{"op":"cursor","cursor":"`...)
	b = append(b, cursor...)
	return append(b, `"}`...)
}

// AppendReservationPush appends a reservation push.
func AppendReservationPush(b []byte, r *Reservation) []byte {
	b = append(b, `{"op":"reservation","reservation":`...)
	b = AppendReservation(b, r)
	return append(b, '}')
}

// Mesh is the answer of GET /v1/mesh.
type Mesh struct {
	Region  string       `json:"region"`
	Node    string       `json:"node"`
	Regions []MeshRegion `json:"regions"`
}

// MeshRegion is one region of a Mesh. State is serving, catching_up or cut_off.
type MeshRegion struct {
	Name    string     `json:"name"`
	State   string     `json:"state"`
	LagMS   int64      `json:"lag_ms"`
	HeardAt Time       `json:"heard_at"`
	Nodes   []MeshNode `json:"nodes"`
}

// MeshNode is one node of a MeshRegion. State is starting, catching_up, serving,
// draining, no_quorum or down; OwnerOf lists the shards it decides for.
type MeshNode struct {
	Name        string `json:"name"`
	Endpoint    string `json:"endpoint"`
	State       string `json:"state"`
	OwnerOf     []int  `json:"owner_of"`
	Connections int    `json:"connections"`
}

// Page is the answer of GET /v1/stock.
type Page struct {
	Items []Item `json:"items"`
	Next  string `json:"next"`
}

// AppendPage appends the page's JSON.
func AppendPage(b []byte, p *Page) []byte {
	b = append(b, `{"items":`...)
	b = appendItems(b, p.Items)
	b = append(b, `,"next":`...)
	b = appendString(b, p.Next)
	return append(b, '}')
}
