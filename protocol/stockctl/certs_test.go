package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// local runs a command that needs no node.
func local(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(t.Context(), args, &out, io.Discard)
	return out.String(), err
}

func mustLocal(t *testing.T, args ...string) string {
	t.Helper()
	out, err := local(t, args...)
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return out
}

func wantRefusal(t *testing.T, want string, args ...string) {
	t.Helper()
	if _, err := local(t, args...); err == nil || !strings.Contains(explain(err), want) {
		t.Errorf("%v: error is %v, want %q in it", args, err, want)
	}
}

// newCerts makes a CA and the certificates of two nodes, and returns their folder.
func newCerts(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "certs")
	mustLocal(t, "certs", "ca", "--dir", dir)
	mustLocal(t, "certs", "node", "eu-1", "--dir", dir, "--region", "eu", "--host", "eu-1.example.com,10.0.0.7")
	mustLocal(t, "certs", "node", "us-1", "--dir", dir, "--region", "us")
	return dir
}

// mutual is the TLS configuration of a node, both to call with and to be called.
func mutual(t *testing.T, dir, name, caDir string) *tls.Config {
	t.Helper()
	own, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".pem"), filepath.Join(dir, name+"-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(read(t, filepath.Join(caDir, "ca.pem")))
	return &tls.Config{Certificates: []tls.Certificate{own}, RootCAs: pool, ClientCAs: pool,
		ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parsed(t *testing.T, dir, name string) *x509.Certificate {
	t.Helper()
	p, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".pem"), filepath.Join(dir, name+"-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return p.Leaf
}

// shake lets the client call the server under a host name, and returns what each
// end came to.
func shake(t *testing.T, client, server *tls.Config, host string) (clientErr, serverErr error) {
	t.Helper()
	near, far := net.Pipe()
	deadline := time.Now().Add(10 * time.Second)
	near.SetDeadline(deadline)
	far.SetDeadline(deadline)
	client = client.Clone()
	client.ServerName = host
	done := make(chan error, 1)
	go func() {
		defer far.Close()
		s := tls.Server(far, server)
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("x"))
		}
		done <- err
	}()
	c := tls.Client(near, client)
	// With TLS 1.3 a client learns by reading that its own certificate was refused.
	_, clientErr = c.Read(make([]byte, 1))
	near.Close()
	return clientErr, <-done
}

func TestNodesTrustEachOther(t *testing.T) {
	dir := newCerts(t)
	eu, us := mutual(t, dir, "eu-1", dir), mutual(t, dir, "us-1", dir)
	for _, c := range []struct {
		client, server *tls.Config
		host           string
		ok             bool
	}{
		{us, eu, "eu-1.example.com", true},
		{us, eu, "10.0.0.7", true},
		{us, eu, "localhost", false},
		{eu, us, "localhost", true},
		{eu, us, "127.0.0.1", true},
		{eu, us, "::1", true},
		{eu, us, "eu-1.example.com", false},
	} {
		clientErr, serverErr := shake(t, c.client, c.server, c.host)
		if (clientErr == nil) != c.ok || c.ok && serverErr != nil {
			t.Errorf("as %s: client %v, server %v, want ok %v", c.host, clientErr, serverErr, c.ok)
		}
	}
}

func TestAnotherCAIsRefused(t *testing.T) {
	dir, other := newCerts(t), newCerts(t)
	eu := mutual(t, dir, "eu-1", dir)
	stranger := mutual(t, other, "us-1", other)
	if err, _ := shake(t, eu, stranger, "localhost"); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("a stranger's server: %v", err)
	}
	stranger.RootCAs = eu.RootCAs // so that only the server has a reason to refuse
	if _, err := shake(t, stranger, eu, "eu-1.example.com"); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("a stranger's client: %v", err)
	}
}

func TestCertificateContents(t *testing.T) {
	dir := newCerts(t)
	ca, eu := parsed(t, dir, "ca"), parsed(t, dir, "eu-1")
	if !ca.IsCA || ca.MaxPathLen != 0 || !ca.MaxPathLenZero || ca.Subject.CommonName != "stockmesh mesh CA" {
		t.Errorf("CA: %v, path %d, %v", ca.IsCA, ca.MaxPathLen, ca.Subject)
	}
	if eu.IsCA || eu.Subject.CommonName != "eu-1" || len(eu.URIs) != 1 || eu.URIs[0].String() != "stockmesh://eu/eu-1" {
		t.Errorf("node: CA %v, %v, %v", eu.IsCA, eu.Subject, eu.URIs)
	}
	for name, c := range map[string]*x509.Certificate{"ca": ca, "node": eu} {
		if past := time.Since(c.NotBefore); past < time.Minute || past > time.Hour {
			t.Errorf("%s: valid since %v ago", name, past)
		}
		if bits := c.SerialNumber.BitLen(); bits < 90 || bits > 128 {
			t.Errorf("%s: serial number of %d bits", name, bits)
		}
	}
	if bytes.Equal(ca.SerialNumber.Bytes(), eu.SerialNumber.Bytes()) {
		t.Error("serial numbers repeat")
	}
}

func TestNodeNeverOutlivesItsCA(t *testing.T) {
	dir := t.TempDir()
	mustLocal(t, "certs", "ca", "--dir", dir, "--days", "10")
	mustLocal(t, "certs", "node", "a", "--dir", dir, "--region", "eu", "--days", "11")
	if ca, node := parsed(t, dir, "ca"), parsed(t, dir, "a"); !node.NotAfter.Equal(ca.NotAfter) {
		t.Errorf("node until %v, CA until %v", node.NotAfter, ca.NotAfter)
	}
}

func TestKeysArePrivate(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no file modes")
	}
	dir := newCerts(t)
	mustLocal(t, "certs", "gossip-key", "--out", filepath.Join(dir, "gossip.key"))
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 7 {
		t.Fatalf("%v, %v: want 7 files", entries, err)
	}
	for _, e := range entries {
		want := os.FileMode(0o600)
		if filepath.Ext(e.Name()) == ".pem" && !strings.HasSuffix(e.Name(), "-key.pem") {
			want = 0o644
		}
		if info, err := e.Info(); err != nil || info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", e.Name(), info.Mode(), want)
		}
	}
}

func TestNothingIsOverwritten(t *testing.T) {
	dir := newCerts(t)
	for _, c := range []struct {
		name string
		args []string
	}{
		{"ca", []string{"certs", "ca", "--dir", dir}},
		{"us-1", []string{"certs", "node", "us-1", "--dir", dir, "--region", "us"}},
	} {
		cert, key := filepath.Join(dir, c.name+".pem"), filepath.Join(dir, c.name+"-key.pem")
		before := string(read(t, cert)) + string(read(t, key))
		wantRefusal(t, "is there already; --force replaces it", c.args...)
		if after := string(read(t, cert)) + string(read(t, key)); after != before {
			t.Errorf("%s was changed", c.name)
		}
		if err := os.Remove(cert); err != nil {
			t.Fatal(err)
		}
		if c.name == "us-1" { // a key alone is kept too
			wantRefusal(t, "us-1-key.pem is there already", c.args...)
		}
		mustLocal(t, append(c.args, "--force")...)
		if parsed(t, dir, c.name); string(read(t, key)) == before {
			t.Errorf("%s: the key is the old one", c.name)
		}
	}
}

func TestUnusableCA(t *testing.T) {
	node := func(dir string) []string { return []string{"certs", "node", "a", "--dir", dir, "--region", "eu"} }
	empty := filepath.Join(t.TempDir(), "my certs")
	wantRefusal(t, "make one with: stockctl certs ca --dir '"+empty+"'", node(empty)...)

	replaced := func(file, from string) []string {
		dir := newCerts(t)
		text := []byte("garbage")
		if from != "" {
			text = read(t, filepath.Join(dir, from))
		}
		if err := os.WriteFile(filepath.Join(dir, file), text, 0o600); err != nil {
			t.Fatal(err)
		}
		return node(dir)
	}
	wantRefusal(t, "ca.pem and", replaced("ca.pem", "")...)
	wantRefusal(t, "failed to find any PEM data in certificate input", replaced("ca.pem", "")...)
	wantRefusal(t, "failed to find any PEM data in key input", replaced("ca-key.pem", "")...)
	wantRefusal(t, "private key does not match", replaced("ca-key.pem", "eu-1-key.pem")...)

	dir := newCerts(t)
	os.Rename(filepath.Join(dir, "eu-1.pem"), filepath.Join(dir, "ca.pem"))
	os.Rename(filepath.Join(dir, "eu-1-key.pem"), filepath.Join(dir, "ca-key.pem"))
	wantRefusal(t, "is no CA's certificate", node(dir)...)

	old, err := newCA("old", time.Now().Add(-time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.write(dir, "ca", true); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, "has expired on", node(dir)...)
}

func TestCertArguments(t *testing.T) {
	dir := newCerts(t)
	node := func(args ...string) []string { return append([]string{"certs", "node", "--dir", dir}, args...) }
	wantRefusal(t, `NAME must be 1 to 32 characters of a-z, 0-9 and -, not "EU"`, node("EU", "--region", "eu")...)
	wantRefusal(t, `NAME must be`, node("../a", "--region", "eu")...)
	wantRefusal(t, `--region must be`, node("a", "--region", "e.u")...)
	wantRefusal(t, `required flag(s) "region"`, node("a")...)
	wantRefusal(t, "share its files", node("ca", "--region", "eu")...)
	wantRefusal(t, "share its files", node("ca-key", "--region", "eu")...)
	wantRefusal(t, "--days must be 1 to", node("a", "--region", "eu", "--days", "0")...)
	wantRefusal(t, "--host is empty", node("a", "--region", "eu", "--host", "")...)
	for _, host := range []string{"https://a.example.com", "a.example.com:8080", "[::1]", "10.0.0.256", "fe80::1%eth0", "a b", "-a.example", "a..b"} {
		wantRefusal(t, "is no DNS name and no IP address", node("a", "--region", "eu", "--host", host)...)
	}
	for _, host := range []string{"eu", "eu-1.stockmesh.svc.cluster.local", "*.example.com", "my_host.local", "2001:db8::1"} {
		mustLocal(t, node("a", "--region", "eu", "--force", "--host", host)...)
	}
	wantRefusal(t, `unknown command "nod"`, "certs", "nod")
	wantRefusal(t, `required flag(s) "dir"`, "certs", "ca")
	wantRefusal(t, "--dir is empty", "certs", "ca", "--dir", "")
	wantRefusal(t, "--name must have", "certs", "ca", "--dir", t.TempDir(), "--name", "")
}

// TestEveryNameFits: a name that the rule allows must also survive the parser of
// certificates, which reads the region as a host.
func TestEveryNameFits(t *testing.T) {
	dir := newCerts(t)
	for _, name := range []string{"1", "a-", "-a", "-", "0-0", "a--b", "10", strings.Repeat("x", 32)} {
		mustLocal(t, "certs", "node", "--dir", dir, "--region", name, "--", name)
		if got := parsed(t, dir, name).URIs[0].String(); got != "stockmesh://"+name+"/"+name {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestNextSteps(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "it's here")
	out := mustLocal(t, "certs", "ca", "--dir", dir)
	if want := `--dir '` + strings.ReplaceAll(dir, "'", `'\''`) + `' --region eu`; !strings.Contains(out, want) {
		t.Errorf("printed %q, want %q in it", out, want)
	}
	t.Chdir(dir)
	out = mustLocal(t, "certs", "node", "eu-1", "--dir", ".", "--region", "eu")
	for _, want := range []string{
		"--name eu-1 --region eu --mesh-cert eu-1.pem --mesh-key eu-1-key.pem --mesh-ca ca.pem\n",
		"--tls-cert eu-1.pem --tls-key eu-1-key.pem\n", "localhost, 127.0.0.1, ::1",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("printed %q, want %q in it", out, want)
		}
	}
	out = mustLocal(t, "certs", "node", "eu-2", "--dir", ".", "--region", "eu", "--json")
	if want := `{"ca":"ca.pem","cert":"eu-2.pem","key":"eu-2-key.pem","expires_at":"`; !strings.HasPrefix(out, want) {
		t.Errorf("printed %q", out)
	}
}

func TestAFailedWriteLeavesTheOldFile(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(target, "inside"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := writeWhole(target, []byte("x"), 0o600); err == nil {
		t.Error("a folder was replaced")
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}
