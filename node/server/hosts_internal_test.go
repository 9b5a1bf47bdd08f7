package server

import (
	"net/http"
	"testing"
)

func TestNamesOfANode(t *testing.T) {
	c := Default()
	c.Advertise, c.Origins = "wss://stock.example:8443", []string{"https://shop.example"}
	for host, want := range map[string]bool{
		"127.0.0.1:8080": true, "127.0.0.1": true, "[::1]:8080": true, "::1": true, "192.0.2.1:1": true, "": true,
		"localhost": true, "LocalHost:8080": true, "stock.example": true, "Stock.Example:1": true, "shop.example:8080": true,
		"evil.example": false, "evil.example:8080": false, "localhost.evil.example": false, "127.0.0.1.evil.example": false,
	} {
		if got := c.names(host); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
}

// A page whose name was made to resolve to this machine (DNS rebinding) gets nothing of
// what is open to this machine only.
func TestPagesOfOtherNames(t *testing.T) {
	g := openGate(t)
	ask := func(url, host string) int {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		r.Header.Set("Sec-Fetch-Site", "same-origin")
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		return res.StatusCode
	}
	for host, want := range map[string]int{"localhost:8081": 200, "evil.example:8081": 403} {
		for _, path := range []string{"/backup", "/revocations", "/metrics", "/readyz"} {
			if got := ask(g.admin+path, host); got != want {
				t.Errorf("%s for %s: %d, want %d", path, host, got, want)
			}
		}
	}
	// With tokens the public port has any name: it trusts nobody for where he comes from.
	if got := ask(g.base+"/", "shop.example"); got != 200 {
		t.Errorf("the console: %d", got)
	}
}
