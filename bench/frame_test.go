package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestFramesComeBack(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 65535, 65536} {
		payload := bytes.Repeat([]byte("x"), n)
		b := append(appendServerFrame(nil, opText, payload), "next"...)
		f, size, err := nextFrame(b)
		if err != nil || f.op != opText || !bytes.Equal(f.payload, payload) || string(b[size:]) != "next" {
			t.Errorf("%d bytes: op %d, %d bytes back, %d taken, %v", n, f.op, len(f.payload), size, err)
		}
		for cut := range min(size, 20) {
			if _, size, err := nextFrame(b[:cut]); size != 0 || err != nil {
				t.Errorf("%d of a frame of %d bytes: %d taken, %v", cut, n, size, err)
			}
		}
	}
}

func TestFramesThatNoServerSends(t *testing.T) {
	for name, b := range map[string][]byte{
		"masked":     appendClientFrame(nil, opText, [4]byte{1, 2, 3, 4}, []byte("x")),
		"fragmented": {opText, 1, 'x'},
		"too large":  {finalBit | opText, 127, 1, 0, 0, 0, 0, 0, 0, 0},
	} {
		if _, _, err := nextFrame(b); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// unmask returns a client frame's payload, after checking its head against a
// frame written the plain way.
func unmask(t *testing.T, b []byte, mask [4]byte) string {
	t.Helper()
	head := 6
	if b[1]&^maskBit == 126 {
		head = 8
	}
	var payload []byte
	for i, c := range b[head:] {
		payload = append(payload, c^mask[i&3])
	}
	if !bytes.Equal(b, appendClientFrame(nil, opText, mask, payload)) {
		t.Fatalf("not a frame: %x", b)
	}
	return string(payload)
}

func TestTemplates(t *testing.T) {
	mask := [4]byte{0xa1, 0x17, 0x5c, 0xff}
	long := strings.Repeat("y", 200)
	for _, c := range []struct {
		commands []string
		want     string
	}{
		{[]string{`{"id":#}`}, `{"id":1234567899}`},
		{[]string{`{"id":#,"key":"k-#"}`}, `{"id":1234567899,"key":"k-1234567899"}`},
		{[]string{`{"op":"` + long + `","id":#}`}, `{"op":"` + long + `","id":1234567899}`},
		{[]string{`{"id":#,"key":"#"}`, `{"id":#}`, `{"key":"a#"}`}, `[{"id":1234567899,"key":"1234567899"},{"id":1234567900},{"key":"a1234567901"}]`},
		{[]string{`{"id":#,"sku":"a~","key":"#"}`}, `{"id":1234567899,"sku":"a0000000000","key":"1234567899"}`},
	} {
		tm := newTemplate(mask, c.commands...)
		tm.append(nil, numberMax) // leaves nothing behind
		b := tm.append([]byte("before"), 1234567899)
		if got := unmask(t, b[len("before"):], mask); got != c.want {
			t.Errorf("got %s\nwant %s", got, c.want)
		}
	}
}

func FuzzNextFrame(f *testing.F) {
	f.Add(appendServerFrame(nil, opText, []byte("hello")))
	f.Add(appendServerFrame(nil, opClose, make([]byte, 300)))
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, n, err := nextFrame(b)
		if n < 0 || n > len(b) || err != nil && n != 0 {
			t.Fatalf("%d of %d bytes taken, %v", n, len(b), err)
		}
		if n > 0 {
			again, _, err := nextFrame(appendServerFrame(nil, fr.op, fr.payload))
			if err != nil || again.op != fr.op || !bytes.Equal(again.payload, fr.payload) {
				t.Fatalf("%v became %v, %v", fr, again, err)
			}
		}
	})
}

func BenchmarkTemplate(b *testing.B) {
	tm := newTemplate([4]byte{1, 2, 3, 4}, `{"op":"sell","id":#,"key":"abcdefghij-12-#","lines":[{"sku":"bench-hot-abcdefghij","quantity":1}]}`)
	var out []byte
	b.ReportAllocs()
	for n := uint64(numberMin); b.Loop(); n++ {
		out = tm.append(out[:0], n)
	}
}
