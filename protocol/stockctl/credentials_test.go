package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// bearers is a handler that notes the tokens that come and lets one in.
type bearers struct {
	next http.Handler

	mu   sync.Mutex
	good string
	seen []string
}

func (b *bearers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	b.seen = append(b.seen, token)
	ok := token == b.good
	b.mu.Unlock()
	if !ok {
		problemOf(w, http.StatusUnauthorized, "unauthorized", "token expired")
		return
	}
	b.next.ServeHTTP(w, r)
}

func problemOf(w http.ResponseWriter, status int, code, detail string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"type":"urn:stockmesh:error:%s","code":%q,"status":%d,"detail":%q}`, code, code, status, detail)
}

// guardedNode is a node that lets the bearer of one token in, at both ports.
func guardedNode(t *testing.T, good string) (n *fakeNode, admin string, b *bearers) {
	n = newFakeNode(t)
	b = &bearers{next: n, good: good}
	n.server.Close()
	n.server = httptest.NewServer(b)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /nodes", says(200, nodesAnswer))
	s := httptest.NewServer(&bearers{next: mux, good: good})
	t.Cleanup(s.Close)
	return n, s.URL, b
}

func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// everyWay is a command for each way that stockctl talks to a node.
func everyWay(admin string) [][]string {
	return [][]string{{"get", "A"}, {"export"}, {"mesh"}, {"node", "list", "--admin", admin}}
}

func TestTokenGoesEverywhere(t *testing.T) {
	n, admin, _ := guardedNode(t, "sesame")
	for _, args := range everyWay(admin) {
		t.Setenv("STOCKMESH_TOKEN", "")
		_, err := ctl(t, n, args...)
		wantOneLine(t, err, "unauthorized: token expired; give a valid token with --token-file or STOCKMESH_TOKEN")
		mustCtl(t, n, append(args, "--token-file", file(t, "sesame\n"))...)
		t.Setenv("STOCKMESH_TOKEN", "sesame")
		mustCtl(t, n, args...)
		_, err = ctl(t, n, append(args, "--token-file", file(t, "another"))...) // it counts first
		wantOneLine(t, err, "unauthorized")
	}
}

func wantOneLine(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(explain(err), want) || strings.Contains(explain(err), "\n") {
		t.Errorf("error is %v, want %q in one line", err, want)
	}
}

func TestTokenIsNeverShown(t *testing.T) {
	n, admin, _ := guardedNode(t, "good")
	t.Setenv("STOCKMESH_TOKEN", "sesame-of-the-environment")
	name := file(t, "sesame-of-the-file")
	for _, with := range [][]string{nil, {"--token-file", name}} {
		for _, args := range append(everyWay(admin), []string{"--help"}, []string{"get", "--help"}, []string{"nonsense"}) {
			var out, errOut bytes.Buffer
			err := run(t.Context(), append(append([]string{"--endpoint", n.server.URL}, args...), with...), &out, &errOut)
			text := out.String() + errOut.String()
			if err != nil {
				text += explain(err) + err.Error()
			}
			if strings.Contains(text, "sesame") {
				t.Errorf("%v: printed %s", args, text)
			}
		}
	}
}

func TestNoFlagTakesAToken(t *testing.T) {
	wantRefusal(t, "unknown flag: --token", "get", "A", "--token", "sesame")
	help := mustLocal(t, "--help")
	for _, want := range []string{"No flag takes the token", "--token-file FILE", "STOCKMESH_TOKEN"} {
		if !strings.Contains(help, want) {
			t.Errorf("the help does not say %q", want)
		}
	}
}

func TestUnusableTokenFiles(t *testing.T) {
	n, admin, b := guardedNode(t, "sesame")
	b.seen = nil
	for name, c := range map[string]struct{ file, want string }{
		"missing": {filepath.Join(t.TempDir(), "gone"), "--token-file: open"},
		"empty":   {file(t, " \n"), "no token in it"},
		"two":     {file(t, "sesame sesame"), "more than a token in it"},
		"header":  {file(t, "sesame\r\nX-Evil: 1"), "more than a token in it"},
		"binary":  {file(t, "sesame\x00"), "more than a token in it"},
		"huge":    {file(t, strings.Repeat("s", tokenBytesMax+1)), "longer than a token may be"},
	} {
		for _, args := range everyWay(admin) {
			_, err := ctl(t, n, append(args, "--token-file", c.file)...)
			if err == nil || !strings.Contains(explain(err), c.want) || strings.Contains(explain(err), "sesame") || strings.Contains(explain(err), "cannot reach") {
				t.Errorf("%s, %v: error is %v", name, args, err)
			}
		}
	}
	if len(b.seen) != 0 {
		t.Errorf("the node was asked with %q", b.seen)
	}
}

// A new token in the file is found when the old one is refused.
func TestTokenFileIsReadAgain(t *testing.T) {
	n, _, b := guardedNode(t, "old")
	name := file(t, "old")
	a := &app{out: io.Discard, errOut: io.Discard, endpoints: []string{n.server.URL}}
	a.tokenFile = name
	c, err := a.dial(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := writeWhole(name, []byte("new\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	b.good = "new"
	b.mu.Unlock()
	n.mu.Lock()
	n.drop()
	n.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := c.Count(ctx, "A", "", 1); err != nil {
		t.Fatal(err)
	}
	if last := b.seen[len(b.seen)-1]; last != "new" {
		t.Errorf("sent %q", last)
	}
}

func TestForbiddenIsExplained(t *testing.T) {
	refuse := func(w http.ResponseWriter, _ *http.Request) {
		problemOf(w, http.StatusForbidden, "forbidden", "admin is not granted in region \"eu\"")
	}
	url := adminNode(t, map[string]http.HandlerFunc{"/": refuse})
	for _, args := range [][]string{{"node", "list", "--admin", url}, {"mesh", "--endpoint", url}, {"get", "A", "--endpoint", url}} {
		_, err := local(t, args...)
		wantOneLine(t, err, `forbidden: admin is not granted in region "eu"; the credentials given don't allow it`)
	}
	bare := adminNode(t, map[string]http.HandlerFunc{"/": says(http.StatusForbidden, "<html>")})
	_, err := local(t, "node", "list", "--admin", bare)
	wantOneLine(t, err, "forbidden: "+bare+" says 403 Forbidden; the credentials")
}

func TestPlainTextIsWarnedOf(t *testing.T) {
	for base, want := range map[string]bool{
		"http://127.0.0.1:8081": false, "http://[::1]:8080": false, "http://localhost:1": false, "https://eu-1": false,
		"http://eu-1:8080": true, "http://10.0.0.7": true, "http://localhost.example.com": true,
	} {
		if got := isPlainText(base); got != want {
			t.Errorf("%s: %v", base, got)
		}
	}
	var errOut bytes.Buffer
	a := &app{errOut: &errOut}
	a.warnOfPlainText("eu-1")
	if errOut.Len() > 0 {
		t.Errorf("without a token it printed %q", errOut.String())
	}
	a.token = "sesame"
	a.warnOfPlainText("127.0.0.1", "wss://eu-2", "eu-1", "eu-3")
	a.warnOfPlainText("eu-1")
	if got := errOut.String(); got != "warning: the token is sent to http://eu-1:8080 without TLS\n" {
		t.Errorf("printed %q", got)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Setenv("STOCKMESH_TOKEN", "sesame")
	thief := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the thief was called") }))
	defer thief.Close()
	url := adminNode(t, map[string]http.HandlerFunc{"/": http.RedirectHandler(thief.URL, http.StatusTemporaryRedirect).ServeHTTP})
	for _, args := range [][]string{{"node", "list", "--admin", url}, {"mesh", "--endpoint", url}} {
		wantRefusal(t, "307 Temporary Redirect", args...)
	}
}

func TestClientCertificateIsShown(t *testing.T) {
	dir := newCerts(t)
	mustLocal(t, "certs", "client", "--dir", dir, "--location", "store-12", "--name", "POS-7")
	n := newFakeNode(t)
	var mu sync.Mutex
	var names []string
	note := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			names = append(names, r.TLS.PeerCertificates[0].Subject.CommonName)
			mu.Unlock()
			next.ServeHTTP(w, r)
		})
	}
	serve := func(next http.Handler) string {
		s := httptest.NewUnstartedServer(note(next))
		s.TLS = mutual(t, dir, "us-1", dir) // named localhost and 127.0.0.1
		s.StartTLS()
		t.Cleanup(s.Close)
		return s.URL
	}
	admin := http.NewServeMux()
	admin.HandleFunc("GET /nodes", says(200, nodesAnswer))
	endpoint, adminAt := serve(n), serve(admin)
	pem := func(name string) string { return filepath.Join(dir, name+".pem") }
	base := []string{"--endpoint", endpoint, "--tls-ca", pem("ca"), "--tls-cert", pem("POS-7"), "--tls-key", pem("POS-7-key")}
	for _, args := range everyWay(adminAt) {
		names = nil
		mustLocal(t, append(args, base...)...)
		if len(names) == 0 || names[0] != "POS-7" {
			t.Errorf("%v: shown %q", args, names)
		}
	}
	wantRefusal(t, "--tls-cert and --tls-key need each other", append([]string{"get", "A"}, base[:6]...)...)
	wantRefusal(t, "--tls-cert "+pem("POS-7"), append(append([]string{"get", "A"}, base...), "--tls-key", pem("us-1-key"))...)
}

func TestClientCertificate(t *testing.T) {
	dir := newCerts(t)
	client := func(args ...string) []string {
		return append([]string{"certs", "client", "--dir", dir, "--name", "POS-7"}, args...)
	}
	awkward := "store 12/3+ü:?#%;@"
	out := mustLocal(t, client("--location", "store-12", "--location", awkward)...)
	c := parsed(t, dir, "POS-7")
	if id := "cert:" + c.SerialNumber.Text(16); !strings.Contains(out, "stockctl revoke --token-id "+id+"\n") {
		t.Errorf("printed %q, want %s in it", out, id)
	}
	if c.IsCA || c.Subject.CommonName != "POS-7" || len(c.ExtKeyUsage) != 1 || c.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth || len(c.DNSNames)+len(c.IPAddresses) != 0 {
		t.Errorf("%v, %v, %v", c.IsCA, c.Subject, c.ExtKeyUsage)
	}
	want := []string{"urn:stockmesh:location:store-12", "urn:stockmesh:location:store%2012%2F3%2B%C3%BC%3A%3F%23%25%3B%40"}
	for i, u := range c.URIs {
		if u.String() != want[i] {
			t.Errorf("URI %s, want %s", u, want[i])
		}
	}
	// It proves a client and no server.
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(read(t, filepath.Join(dir, "ca.pem")))
	for usage, ok := range map[x509.ExtKeyUsage]bool{x509.ExtKeyUsageClientAuth: true, x509.ExtKeyUsageServerAuth: false} {
		if _, err := c.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{usage}}); (err == nil) != ok {
			t.Errorf("usage %v: %v", usage, err)
		}
	}
	if _, err := tls.LoadX509KeyPair(filepath.Join(dir, "POS-7.pem"), filepath.Join(dir, "POS-7-key.pem")); err != nil {
		t.Error(err)
	}
	wantRefusal(t, "is there already; --force replaces it", client("--location", "a")...)
	if out := mustLocal(t, client("--location", "a", "--force", "--json")...); !strings.Contains(out, `"subject":"cert:POS-7","token_id":"cert:`) || !strings.HasPrefix(out, `{"ca":`) {
		t.Errorf("printed %q", out)
	}
	for _, name := range []string{"", "CA", "a-KEY", "../a", ".a", "-a", "a b", strings.Repeat("x", 59)} {
		wantRefusal(t, "name", "certs", "client", "--dir", dir, "--location", "a", "--name="+name)
	}
	wantRefusal(t, "--location", client("--location", "")...)
	wantRefusal(t, `required flag(s) "location"`, client()...)
}
