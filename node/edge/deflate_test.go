package edge

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stockmesh/stockmesh/protocol"
)

// packed compresses with the standard library, at its best.
func packed(t testing.TB, s string) string {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, s); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(b.String(), deflateTail[:4])
}

func unpacked(s []byte) ([]byte, error) {
	return io.ReadAll(flate.NewReader(io.MultiReader(bytes.NewReader(s), strings.NewReader(deflateTail))))
}

func TestInflate(t *testing.T) {
	const limit = 100
	final := "\xf3\x48\xcd\xc9\xc9\x07\x00\x00"
	var f inflater
	for _, tc := range []struct {
		name, in, want string
		code           int
	}{
		{"RFC 7692, 7.2.3.1: one block", "\xf2\x48\xcd\xc9\xc9\x07\x00", "Hello", 0},
		{"RFC 7692, 7.2.3.3: no compression", "\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00", "Hello", 0},
		{"RFC 7692, 7.2.3.4: BFINAL", final, "Hello", 0},
		{"RFC 7692, 7.2.3.5: two blocks", "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", "Hello", 0},
		{"RFC 7692, 7.2.3.2: a context that was not to be taken over", "\xf2\x00\x11\x00\x00", "", 1007},
		{"RFC 7692, 7.2.3.6: empty", "\x00", "", 0},
		{"nothing at all", "", "", 1007},
		{"final blocks", final[:7] + final, "HelloHello", 0},
		{"many final blocks", strings.Repeat("\x03\x00", 1000), "", 1009},
		{"exactly the limit", packed(t, strings.Repeat("x", limit)), strings.Repeat("x", limit), 0},
		{"over the limit", packed(t, strings.Repeat("x", limit+1)), "", 1009},
		{"over the limit after a final block", final[:7] + packed(t, strings.Repeat("x", limit)), "", 1009},
		{"a reserved block type", "\x07", "", 1007},
		{"cut off", packed(t, "abcdefghijklmnopqrstuvwxyz")[:10], "", 1007},
		{"a length that is not its complement's", "\x00\x05\x00\xfa\xfe\x48\x65\x6c\x6c\x6f\x00", "", 1007},
	} {
		for range 2 { // the same again: nothing is taken over
			got, bad := f.inflate([]byte(tc.in), limit)
			if code := codeOf(bad); code != tc.code || string(got) != tc.want {
				t.Errorf("%s: got %q, code %d", tc.name, got, code)
			}
		}
	}
}

func codeOf(f *fault) int {
	if f == nil {
		return 0
	}
	return f.code
}

// A message of 64 KiB can stand for a thousand times as much.
func TestInflateBomb(t *testing.T) {
	bomb := []byte(packed(t, strings.Repeat("\x00", 64<<20)))
	if len(bomb) > protocol.MessageBytesMax {
		t.Fatalf("the bomb takes %d bytes", len(bomb))
	}
	var f inflater
	if _, bad := f.inflate(bomb, protocol.MessageBytesMax); codeOf(bad) != protocol.CloseTooLarge {
		t.Fatal(bad)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const times = 100
	for range times {
		_, _ = f.inflate(bomb, protocol.MessageBytesMax)
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / times; each > 8<<10 {
		t.Errorf("%d bytes allocated for each", each)
	}
}

func TestDeflate(t *testing.T) {
	item := &protocol.Item{SKU: "85123A", Location: "main", OnHand: 7, Version: "eu:12"}
	stock := string(protocol.AppendStock(nil, false, protocol.AppendItem(nil, item), protocol.AppendItem(nil, item)))
	var d deflater
	for _, tc := range []struct {
		name, message string
		compressed    bool
	}{
		{"empty", "", false},
		{"short", strings.Repeat("x", deflateBytesMin-1), false},
		{"long enough", strings.Repeat("x", deflateBytesMin), true},
		{"items", stock, true},
		{"noise", string(noise(1000)), false},
		{"more than a window", strings.Repeat(stock, 1000), true},
		{"short after long", "{}", false},
	} {
		frame := d.appendMessage([]byte("before"), opText, func(b []byte) []byte { return append(b, tc.message...) })
		h, n, ok := parseHeader(frame[len("before"):])
		payload := frame[len("before")+n:]
		if !ok || !h.Fin || int(h.Length) != len(payload) || (h.Rsv == 4) != tc.compressed {
			t.Errorf("%s: %+v", tc.name, h)
		}
		if len(payload) > len(tc.message) {
			t.Errorf("%s: %d bytes became %d", tc.name, len(tc.message), len(payload))
		}
		if tc.compressed {
			var err error
			if payload, err = unpacked(payload); err != nil {
				t.Errorf("%s: %v", tc.name, err)
			}
		}
		if string(payload) != tc.message {
			t.Errorf("%s: %s", tc.name, cmp.Diff(tc.message, string(payload)))
		}
	}
}

// noise doesn't compress.
func noise(n int) []byte {
	b, x := make([]byte, n), uint32(1)
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}

// What is broadcast is compressed once.
func TestBroadcastIsCompressedOnce(t *testing.T) {
	l := newBench(t)
	ids := []protocol.ItemID{1, 2, 3}
	var first []byte
	for i := range 10 {
		c := l.openConn()
		c.deflate = true
		c.sub = &subscriber{due: append([]protocol.ItemID(nil), ids...)}
		if i == 0 {
			first = l.hub.sharedStock(c.form, ids)
			l.deflater.plain = append(l.deflater.plain[:0], "untouched"...)
		}
		l.hub.pushDue(c)
		if !bytes.Equal(c.out, first) {
			t.Fatalf("connection %d gets %q", i, c.out)
		}
	}
	if string(l.deflater.plain) != "untouched" {
		t.Fatal("compressed again")
	}
}

func FuzzInflate(f *testing.F) {
	for _, s := range []string{"", "\x00", "\x03\x00", packed(f, "Hello"), packed(f, strings.Repeat("Hello", 20000)), string(noise(100))} {
		f.Add([]byte(s))
	}
	var in inflater
	f.Fuzz(func(t *testing.T, data []byte) {
		const limit = 4 << 10
		got, bad := in.inflate(data, limit)
		if len(got) > limit || cap(in.out) > limit+1 {
			t.Fatalf("%d bytes", len(got))
		}
		// The standard library's reader stops at the first final block.
		want, err := io.ReadAll(io.LimitReader(flate.NewReader(io.MultiReader(bytes.NewReader(data), strings.NewReader(deflateTail))), limit+1))
		if err == nil && bad == nil && !bytes.HasPrefix(got, want) || err != nil && bad == nil {
			t.Fatalf("got %q, want %q, %v", got, want, err)
		}
		if err == nil && len(want) > limit && codeOf(bad) != protocol.CloseTooLarge {
			t.Fatalf("%d bytes or more: %v", len(want), bad)
		}
	})
}

func FuzzDeflate(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte(strings.Repeat("Hello", 1000)))
	f.Add(noise(2000))
	var d deflater
	f.Fuzz(func(t *testing.T, data []byte) {
		frame := d.appendMessage(nil, opBinary, func(b []byte) []byte { return append(b, data...) })
		h, n, _ := parseHeader(frame)
		payload := frame[n:]
		if h.Rsv != 0 {
			var err error
			if payload, err = unpacked(payload); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(payload, data) {
			t.Fatal(cmp.Diff(data, payload))
		}
	})
}

func BenchmarkDeflate(b *testing.B) {
	for name, items := range map[string]int{"1 item": 1, "16 items": 16} {
		b.Run(name, func(b *testing.B) {
			var encoded [][]byte
			for i := range items {
				it := protocol.Item{SKU: fmt.Sprintf("85123-%d", i*7919), Location: "main", OnHand: int64(i) * 31, Version: fmt.Sprintf("eu:%d", i*i), UpdatedAt: 1}
				encoded = append(encoded, protocol.AppendItem(nil, &it))
			}
			stock := protocol.AppendStock(nil, false, encoded...)
			var d deflater
			var frame []byte
			b.ReportAllocs()
			for b.Loop() {
				frame = d.appendMessage(frame[:0], opText, func(b []byte) []byte { return append(b, stock...) })
			}
			b.ReportMetric(float64(len(frame))/float64(len(stock)), "ratio")
		})
	}
}

func BenchmarkInflate(b *testing.B) {
	for name, message := range map[string]string{
		"command": packed(b, `{"op":"adjust","id":12345,"key":"c3-00000012345","sku":"85123A","delta":-1}`),
		"bomb":    packed(b, strings.Repeat("\x00", 64<<20)),
		"finals":  strings.Repeat("\x03\x00", 30000),
	} {
		b.Run(name, func(b *testing.B) {
			var f inflater
			b.ReportAllocs()
			for b.Loop() {
				_, _ = f.inflate([]byte(message), protocol.MessageBytesMax)
			}
		})
	}
}
