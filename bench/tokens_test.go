package main

import (
	"net/url"
	"strings"
	"testing"
)

func TestTokenOfAnEndpoint(t *testing.T) {
	const plain = "ws://127.0.0.1:1/v1/ws"
	endpoint, err := withToken(plain, "a.b.c")
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Host != "127.0.0.1:1" {
		t.Fatalf("%v, %v", u, err)
	}
	head := upgrade(u, authorization(u))
	if !strings.Contains(head, "\r\nAuthorization: Bearer a.b.c\r\n\r\n") || strings.Count(head, "a.b.c") != 1 {
		t.Errorf("%q", head)
	}
	if shown := redacted(endpoint); strings.Contains(shown, "a.b.c") {
		t.Errorf("%s", shown)
	}
	if without, err := withToken(plain, ""); err != nil || without != plain || authorization(&url.URL{Host: "x"}) != "" {
		t.Errorf("%s, %v", without, err)
	}
	rep := newReport(&options{dir: t.TempDir(), endpoints: []string{endpoint}})
	if strings.Contains(rep.Where+strings.Join(rep.Endpoints, ""), "a.b.c") {
		t.Error("the report tells the token")
	}
}
