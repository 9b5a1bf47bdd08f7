package edge

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
)

// v2 is a PROXY header of version 2.
func v2(versionAndCommand, family byte, rest ...byte) string {
	b := append([]byte(nil), proxySignature...)
	b = append(b, versionAndCommand, family, byte(len(rest)>>8), byte(len(rest)))
	return string(append(b, rest...))
}

var (
	v2IPv4 = []byte{192, 0, 2, 7, 10, 0, 0, 1, 0xdc, 4, 1, 187}
	v2IPv6 = append(append(netip.MustParseAddr("2001:db8::7").AsSlice(), netip.IPv6Loopback().AsSlice()...), 0xdc, 4, 1, 187)
)

func proxyHeaders() map[string]struct {
	header  string
	client  string
	verdict verdict
} {
	type row = struct {
		header  string
		client  string
		verdict verdict
	}
	return map[string]row{
		"v1 IPv4":                 {"PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\n", "192.0.2.7", proxyDone},
		"v1 IPv6":                 {"PROXY TCP6 2001:db8::7 ::1 56324 443\r\n", "2001:db8::7", proxyDone},
		"v1 IPv4 in IPv6":         {"PROXY TCP6 ::ffff:192.0.2.7 ::1 56324 443\r\n", "192.0.2.7", proxyDone},
		"v1 unknown":              {"PROXY UNKNOWN\r\n", "", proxyDone},
		"v1 unknown with rest":    {"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", "", proxyDone},
		"v1 other family":         {"PROXY TCP4 2001:db8::7 ::1 56324 443\r\n", "", proxyBad},
		"v1 other family too":     {"PROXY TCP6 192.0.2.7 10.0.0.1 56324 443\r\n", "", proxyBad},
		"v1 no such protocol":     {"PROXY UDP4 192.0.2.7 10.0.0.1 56324 443\r\n", "", proxyBad},
		"v1 no address":           {"PROXY TCP4 example.com 10.0.0.1 56324 443\r\n", "", proxyBad},
		"v1 zone":                 {"PROXY TCP6 fe80::1%eth0 ::1 56324 443\r\n", "", proxyBad},
		"v1 too few fields":       {"PROXY TCP4 192.0.2.7 10.0.0.1 56324\r\n", "", proxyBad},
		"v1 nothing":              {"PROXY \r\n", "", proxyBad},
		"v1 too long":             {"PROXY UNKNOWN " + strings.Repeat("x", 100) + "\r\n", "", proxyBad},
		"v2 IPv4":                 {v2(0x21, 0x11, v2IPv4...), "192.0.2.7", proxyDone},
		"v2 IPv6":                 {v2(0x21, 0x21, v2IPv6...), "2001:db8::7", proxyDone},
		"v2 IPv4 with extensions": {v2(0x21, 0x11, append(bytes.Clone(v2IPv4), 0xea, 0, 1, 'x')...), "192.0.2.7", proxyDone},
		"v2 local":                {v2(0x20, 0), "", proxyDone},
		"v2 local with addresses": {v2(0x20, 0x11, v2IPv4...), "", proxyDone},
		"v2 unspecified":          {v2(0x21, 0), "", proxyDone},
		"v2 unix":                 {v2(0x21, 0x31, make([]byte, 216)...), "", proxyDone},
		"v2 datagrams":            {v2(0x21, 0x12, v2IPv4...), "", proxyDone},
		"v2 short addresses":      {v2(0x21, 0x11, v2IPv4[:11]...), "", proxyBad},
		"v2 short IPv6":           {v2(0x21, 0x21, v2IPv6[:35]...), "", proxyBad},
		"v2 no such family":       {v2(0x21, 0x41, v2IPv6...), "", proxyBad},
		"v2 no such transport":    {v2(0x21, 0x13, v2IPv6...), "", proxyBad},
		"v2 other version":        {v2(0x31, 0x11, v2IPv4...), "", proxyBad},
		"v2 no such command":      {v2(0x22, 0x11, v2IPv4...), "", proxyBad},
		"v2 too long":             {v2(0x21, 0x11, make([]byte, proxyBytesMax)...), "", proxyBad},
	}
}

func TestParseProxy(t *testing.T) {
	for name, row := range proxyHeaders() {
		t.Run(name, func(t *testing.T) {
			client, n, v := parseProxy([]byte(row.header + "GET / HTTP/1.1\r\n"))
			if v != row.verdict || row.client != "" && client.String() != row.client || (row.client == "") == client.IsValid() {
				t.Fatalf("verdict %d, client %v", v, client)
			}
			if v != proxyDone {
				return
			}
			if n != len(row.header) {
				t.Errorf("takes %d bytes of %d", n, len(row.header))
			}
			for cut := range len(row.header) {
				if _, _, v := parseProxy([]byte(row.header[:cut])); v != proxyPart {
					t.Errorf("the first %d bytes: verdict %d", cut, v)
				}
			}
		})
	}
	for _, none := range []string{"GET / HTTP/1.1\r\n", "POST / HTTP/1.1\r\n", "PROXIES", "\x16\x03\x01\x00", "\r\nGET"} {
		if _, n, v := parseProxy([]byte(none)); v != proxyNone || n != 0 {
			t.Errorf("%q: verdict %d", none, v)
		}
	}
}

func FuzzParseProxy(f *testing.F) {
	for _, row := range proxyHeaders() {
		f.Add([]byte(row.header + "GET"))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		client, n, v := parseProxy(b)
		if n < 0 || n > len(b) && v != proxyPart || n > proxyBytesMax+1 && v == proxyDone {
			t.Fatalf("takes %d of %d bytes, verdict %d", n, len(b), v)
		}
		switch {
		case v == proxyPart && len(b) > proxyBytesMax:
			t.Fatal("would wait for ever")
		case v != proxyDone && client.IsValid():
			t.Fatal("a client without a header")
		case v != proxyDone:
			return
		}
		// The same however much of it came, and whatever comes behind it.
		if again, m, w := parseProxy(append(bytes.Clone(b[:n]), "\r\nPROXY"...)); again != client || m != n || w != v {
			t.Fatalf("with something else behind it: %v %d %d", again, m, w)
		}
		if _, _, w := parseProxy(b[:n-1]); w != proxyPart {
			t.Fatalf("one byte less: verdict %d", w)
		}
	})
}

func TestForwardedFor(t *testing.T) {
	proxies := netip.MustParsePrefix("10.0.0.0/8")
	for _, row := range []struct{ peer, list, want string }{
		{"10.0.0.1", "", "10.0.0.1"},
		{"10.0.0.1", "192.0.2.7", "192.0.2.7"},
		{"10.0.0.1", "192.0.2.7, 10.0.0.2", "192.0.2.7"},
		{"10.0.0.1", "1.1.1.1, 192.0.2.7,10.0.0.2", "192.0.2.7"}, // 1.1.1.1 is what the client says
		{"10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"},
		{"10.0.0.1", "192.0.2.7, unknown", "10.0.0.1"},
		{"10.0.0.1", "192.0.2.7, unknown, 10.0.0.2", "10.0.0.2"},
		{"10.0.0.1", "192.0.2.7,", "10.0.0.1"},
		{"10.0.0.1", "192.0.2.7:1234", "192.0.2.7"},
		{"10.0.0.1", "[2001:db8::7]:1234", "2001:db8::7"},
		{"10.0.0.1", "[2001:db8::7]", "2001:db8::7"},
		{"10.0.0.1", "2001:db8::7%eth0", "2001:db8::7"},
		{"10.0.0.1", "::ffff:192.0.2.7", "192.0.2.7"},
		{"192.0.2.1", "192.0.2.7", "192.0.2.1"}, // no proxy's word
	} {
		if got := forwardedFor(netip.MustParseAddr(row.peer), row.list, proxies.Contains); got.String() != row.want {
			t.Errorf("%s, %q: %v, want %s", row.peer, row.list, got, row.want)
		}
	}
}

func FuzzForwardedFor(f *testing.F) {
	f.Add("192.0.2.7, 10.0.0.2")
	f.Add("[2001:db8::7]:1, ,,x")
	peer := netip.MustParseAddr("10.0.0.1")
	f.Fuzz(func(t *testing.T, list string) {
		got := forwardedFor(peer, list, netip.MustParsePrefix("10.0.0.0/8").Contains)
		if !got.IsValid() || got.Zone() != "" || got.Is4In6() {
			t.Fatalf("%q: %v", list, got)
		}
		if got != peer && !strings.Contains(list, ":") && !strings.Contains(list, got.String()) {
			t.Fatalf("%q: %v came from nowhere", list, got)
		}
	})
}
