package server_test

import (
	"net"
	"strings"
	"testing"

	"github.com/stockmesh/stockmesh/node/server"
)

// Beyond loopback nobody is served who need not say who he is, unless it is insisted on.
func TestListeningBeyondLoopback(t *testing.T) {
	for _, addr := range []string{":0", "0.0.0.0:0", "[::]:0", "192.0.2.1:8080", "example.com:80"} {
		for flag, field := range map[string]func(*server.Config) *string{
			"--listen": func(c *server.Config) *string { return &c.Listen }, "--admin": func(c *server.Config) *string { return &c.Admin },
		} {
			c := server.Default()
			*field(&c) = addr
			if _, err := server.New(c); err == nil || !strings.Contains(err.Error(), flag+" "+addr) || !strings.Contains(err.Error(), "--jwks") || !strings.Contains(err.Error(), "--insecure") {
				t.Errorf("%s %s without keys: %v", flag, addr, err)
			}
			c.Insecure = true
			if _, err := server.New(c); err != nil {
				t.Errorf("%s %s --insecure: %v", flag, addr, err)
			}
			c.Insecure, c.JWKS = false, "keys.json"
			if _, err := server.New(c); err != nil {
				t.Errorf("%s %s --jwks: %v", flag, addr, err)
			}
		}
	}
	for _, addr := range []string{"127.0.0.1:0", "127.9.9.9:80", "[::1]:0", "localhost:0", "[::ffff:127.0.0.1]:0"} {
		c := server.Default()
		c.Listen, c.Admin = addr, addr
		if _, err := server.New(c); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

// With keys it does start there, and asks for tokens on both ports.
func TestBeyondLoopbackTokensAreAskedFor(t *testing.T) {
	l := openLodge(t, func(c *server.Config) { c.Listen, c.Admin = "0.0.0.0:0", "0.0.0.0:0" })
	if a := l.ask("GET", "http://"+loopback(t, l.Addr().String())+"/v1/stock", "", ""); a.status != 401 {
		t.Errorf("public: %d %s", a.status, a.body)
	}
	away := ownAddress(t)
	if away == "" {
		t.Skip("this machine has no address but loopback")
	}
	_, port, err := net.SplitHostPort(l.AdminAddr())
	if err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string]int{"": 401, l.keys.token(onlyTees): 403, l.keys.token(everything): 200} {
		if a := l.ask("GET", "http://"+net.JoinHostPort(away, port)+"/metrics", token, ""); a.status != want {
			t.Errorf("admin from %s: %d, want %d", away, a.status, want)
		}
	}
	if len(l.log.lines(t, map[string]any{"level": "WARN"})) == 0 {
		t.Error("that tokens come in the clear should have been said")
	}
}

func loopback(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", port)
}

// ownAddress is one of this machine that is not loopback, "" without.
func ownAddress(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	return ""
}

// A node that asks nobody who he is says so, and warns where others than this machine
// may be served.
func TestStartWithoutKeysIsLoud(t *testing.T) {
	loud := func(l *lodge, level string) (found int) {
		for _, line := range l.log.lines(t, map[string]any{"level": level}) {
			if strings.Contains(line["msg"].(string), "not authenticated") && strings.Contains(line["msg"].(string), "--jwks") {
				found++
			}
		}
		return found
	}
	none := func(c *server.Config) { c.JWKS, c.JWTIssuer, c.JWTAudience = "", "", "" }
	open := openLodge(t, none, func(c *server.Config) { c.Listen, c.Insecure = "0.0.0.0:0", true })
	if n := loud(open, "WARN"); n != 1 {
		t.Errorf("--insecure: it was said %d times:\n%s", n, open.log)
	}
	if here := openLodge(t, none); loud(here, "INFO")+loud(here, "WARN") != 1 {
		t.Errorf("on loopback it was not said once:\n%s", here.log)
	}
	if keys := openLodge(t); loud(keys, "INFO")+loud(keys, "WARN") != 0 {
		t.Errorf("with keys it was said:\n%s", keys.log)
	}
}
