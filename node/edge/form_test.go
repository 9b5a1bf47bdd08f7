package edge_test

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/stockmesh/stockmesh/node/edge"
	"github.com/stockmesh/stockmesh/protocol"
)

// form is what a client agrees on with the node. Tests speak JSON; a peer of
// another form translates.
type form struct {
	name    string
	codec   protocol.Codec
	deflate bool
}

var wireForms = []form{
	{"json", protocol.JSON, false},
	{"cbor", protocol.CBOR, false},
	{"json+deflate", protocol.JSON, true},
	{"cbor+deflate", protocol.CBOR, true},
}

const rsv1 = 0x40

// eachForm runs a test once for every form.
func eachForm(t *testing.T, run func(t *testing.T, form form)) {
	for _, form := range wireForms {
		t.Run(form.name, func(t *testing.T) { run(t, form) })
	}
}

// dialAs connects, agrees on a form and takes the hello.
func (f *fixture) dialAs(form form) *peer {
	f.Helper()
	lines := []string{"Sec-WebSocket-Protocol: " + form.codec.Subprotocol()}
	if form.deflate {
		lines = append(lines, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")
	}
	p := f.tcp()
	p.form = form
	p.raw(handshake(f.addr, lines...))
	head := p.upgraded().Header
	if got := head.Get("Sec-WebSocket-Protocol"); got != form.codec.Subprotocol() {
		f.Fatalf("subprotocol %q", got)
	}
	if got := head.Get("Sec-WebSocket-Extensions") != ""; got != form.deflate {
		f.Fatalf("compression agreed on: %v", got)
	}
	if m := p.next(); m.Op != "hello" {
		f.Fatalf("got %s, want hello", m.raw)
	}
	return p
}

func (f form) op() byte {
	if f.codec == protocol.CBOR {
		return binaryFrame
	}
	return text
}

// encode returns the first byte and the payload of a message's only frame.
func (f form) encode(t testing.TB, message string) (first byte, payload string) {
	t.Helper()
	if f.codec == protocol.CBOR {
		message = toCBOR(t, message)
	}
	if f.deflate {
		return fin | rsv1 | f.op(), deflated(t, message)
	}
	return fin | f.op(), message
}

// decode returns a node's message as JSON.
func (f form) decode(payload []byte) ([]byte, error) {
	if f.codec != protocol.CBOR {
		return payload, nil
	}
	var v any
	if err := protocol.CBOR.Unmarshal(payload, &v); err != nil {
		return nil, fmt.Errorf("% x: %w", payload, err)
	}
	return json.Marshal(jsonOf(v))
}

// jsonOf makes what CBOR was read into fit for JSON.
func jsonOf(v any) any {
	switch v := v.(type) {
	case map[any]any:
		m := make(map[string]any, len(v))
		for k, x := range v {
			m[k.(string)] = jsonOf(x)
		}
		return m
	case []any:
		for i := range v {
			v[i] = jsonOf(v[i])
		}
	}
	return v
}

func toCBOR(t testing.TB, message string) string {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(message))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s: %v", message, err)
	}
	b, err := cbor.Marshal(withNumbers(v))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func withNumbers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = withNumbers(v[k])
		}
	case []any:
		for i := range v {
			v[i] = withNumbers(v[i])
		}
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64()
		return f
	}
	return v
}

// deflated compresses a message as RFC 7692 has it.
func deflated(t testing.TB, message string) string {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.DefaultCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, message); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(b.String(), "\x00\x00\xff\xff")
}

// inflated is the other way round, with nothing remembered from before.
func inflated(payload []byte) ([]byte, error) {
	tail := strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff")
	return io.ReadAll(flate.NewReader(io.MultiReader(bytes.NewReader(payload), tail)))
}

func TestSubprotocols(t *testing.T) {
	const asJSON, asCBOR = protocol.SubprotocolJSON, protocol.SubprotocolCBOR
	f := start(t)
	for _, tc := range []struct {
		offered []string // header lines
		want    string
		codec   protocol.Codec
	}{
		{nil, "", protocol.JSON},
		{[]string{asJSON}, asJSON, protocol.JSON},
		{[]string{asCBOR}, asCBOR, protocol.CBOR},
		{[]string{asJSON + ", " + asCBOR}, asJSON, protocol.JSON},
		{[]string{asCBOR + "," + asJSON}, asCBOR, protocol.CBOR},
		{[]string{"mqtt, " + asCBOR + ", x"}, asCBOR, protocol.CBOR},
		{[]string{"mqtt", asCBOR, asJSON}, asCBOR, protocol.CBOR},
	} {
		p := f.tcp()
		p.form.codec = tc.codec
		var lines []string
		for _, o := range tc.offered {
			lines = append(lines, "Sec-WebSocket-Protocol: "+o)
		}
		p.raw(handshake(f.addr, lines...))
		if got := p.upgraded().Header.Get("Sec-WebSocket-Protocol"); got != tc.want {
			t.Errorf("%v: got %q", tc.offered, got)
		}
		if m := p.next(); m.Op != "hello" {
			t.Errorf("%v: got %s", tc.offered, m.raw)
		}
		p.ok(`{"op":"ping"}`)
	}
	p := f.tcp()
	p.raw(handshake(f.addr, "Sec-WebSocket-Protocol: mqtt", "Sec-WebSocket-Protocol: stockmesh.v2.json"))
	res := p.response()
	body, _ := io.ReadAll(res.Body)
	if res.StatusCode != 400 || !strings.Contains(string(body), asJSON) || !strings.Contains(string(body), asCBOR) {
		t.Errorf("%s %s", res.Status, body)
	}
}

// An id of any kind comes back byte for byte, however it was written.
func TestCBORIDsComeBackAsTheyWere(t *testing.T) {
	p := start(t).dialAs(wireForms[1])
	const ping = "\x62op\x64ping"
	for _, id := range []string{
		"\x00", "\x17", "\x18\x05", "\x1b\x00\x00\x00\x00\x00\x00\x00\x07", "\x1b\xff\xff\xff\xff\xff\xff\xff\xff", "\x20", "\xf9\x3c\x00",
		"\xfb\x3f\xf8\x00\x00\x00\x00\x00\x00", "\x60", "\x64mine", "\x78\x02\xc3\xa9", "\xf6",
	} {
		p.frame(fin|binaryFrame, "\xa2"+ping+"\x62id"+id)
		p.setDeadline()
		_, got, err := p.readFrame()
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff("\xa2\x62id"+id+"\x62ok\xa0", string(got)); d != "" {
			t.Error(d)
		}
	}
	p.frame(fin|binaryFrame, "\xa1"+ping)
	if m := p.next(); string(m.ID) != "null" || m.Error != nil {
		t.Errorf("got %s", m.raw)
	}
	p.frame(fin|binaryFrame, `{"op":"ping"}`)
	if m := p.next(); string(m.ID) != "null" || m.Error == nil || m.Error.Code != protocol.CodeBadRequest {
		t.Errorf("got %s", m.raw)
	}
	p.frame(fin|binaryFrame, "\xa2"+ping+"\x62id\x64\xff\xff\xff\xff") // text that isn't: the message's fault, not the frame's
	if m := p.next(); m.Error == nil || m.Error.Code != protocol.CodeBadRequest {
		t.Errorf("got %s", m.raw)
	}
}

// All hear the same of one change, in whatever form, and again when it was read
// for another form before.
func TestFanoutToMixedForms(t *testing.T) {
	f := start(t, func(c *edge.Config) { c.Loops = 1 })
	var peers []*peer
	for i := range 4 * len(wireForms) {
		p := f.dialAs(wireForms[i%len(wireForms)])
		p.subscribe(`"all":true`)
		peers = append(peers, p)
	}
	for n, skus := range [][]string{{"A"}, names(3), names(300), {"A", "B"}, names(2)} {
		f.ledger.set(int64(n), skus...)
		want := items(peers[0].settle())
		if len(want) != len(skus) {
			t.Fatalf("%d items of %d", len(want), len(skus))
		}
		for _, p := range peers[1:] {
			pushes := p.settle()
			if d := cmp.Diff(want, items(pushes)); d != "" {
				t.Fatal(p.form.name, d)
			}
			for _, it := range pushes[len(pushes)-1].Items {
				if it != f.ledger.all()[it.SKU+"@main"] {
					t.Fatalf("%s: got %+v", p.form.name, it)
				}
			}
		}
	}
	sent := f.metric("stockmesh_items_pushed_total")
	if want := float64(len(peers) * (1 + 3 + 300 + 2 + 2)); sent != want {
		t.Errorf("%v items counted, want %v", sent, want)
	}
}

// The type of a frame is the codec's.
func TestFrameTypes(t *testing.T) {
	f := start(t)
	eachForm(t, func(t *testing.T, form form) {
		f.TB = t
		other := byte(text + binaryFrame - form.op())
		for _, bytes := range []string{
			frameBytes(fin|other, "{}"), frameBytes(other, "{"), frameBytes(fin|other, "\xa0"), frameBytes(fin|other, "\xff"), frameBytes(fin|other, ""),
		} {
			p := f.dialAs(form)
			p.raw(bytes)
			p.wantClose(protocol.CloseUnsupportedData)
		}
	})
}
