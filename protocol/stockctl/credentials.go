package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/pflag"
)

// tokenBytesMax is what nodes take at most.
const tokenBytesMax = 16 << 10

// credentials are what stockctl shows to nodes. There is no flag for the token itself:
// it would stand in the list of processes, for every user of the machine.
type credentials struct {
	token             string // of the environment
	tokenFile         string
	caFile            string
	certFile, keyFile string
	toldOfPlainText   bool
}

func (c *credentials) addFlags(flags *pflag.FlagSet) {
	// The environment's token is no default of a flag, which --help would print.
	c.token = strings.TrimSpace(os.Getenv("STOCKMESH_TOKEN"))
	flags.StringVar(&c.tokenFile, "token-file", os.Getenv("STOCKMESH_TOKEN_FILE"), "`FILE` that holds a token, read again when another is needed [STOCKMESH_TOKEN_FILE]; or the token itself in STOCKMESH_TOKEN, never as a flag: others could see it")
	flags.StringVar(&c.caFile, "tls-ca", os.Getenv("STOCKMESH_TLS_CA"), "PEM `FILE` of the CAs that nodes' certificates are checked with, instead of the system's [STOCKMESH_TLS_CA]")
	// Not STOCKMESH_TLS_CERT, which in a node's environment is the node's own.
	flags.StringVar(&c.certFile, "tls-cert", os.Getenv("STOCKMESH_CLIENT_CERT"), "PEM `FILE` of a client certificate to show to nodes [STOCKMESH_CLIENT_CERT]")
	flags.StringVar(&c.keyFile, "tls-key", os.Getenv("STOCKMESH_CLIENT_KEY"), "PEM `FILE` of that certificate's key [STOCKMESH_CLIENT_KEY]")
}

// tls returns nil where the system's CAs will do and no certificate is shown.
func (c *credentials) tls() (*tls.Config, error) {
	if c.caFile == "" && c.certFile == "" && c.keyFile == "" {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.caFile != "" {
		pem, err := os.ReadFile(c.caFile)
		if err != nil {
			return nil, fmt.Errorf("--tls-ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--tls-ca: no certificate in %s", c.caFile)
		}
	}
	if c.certFile == "" && c.keyFile == "" {
		return config, nil
	}
	if c.certFile == "" || c.keyFile == "" {
		return nil, errors.New("--tls-cert and --tls-key need each other")
	}
	// Read for each connection: it may be renewed while stockctl watches.
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
		if err != nil {
			return nil, fmt.Errorf("--tls-cert %s: %w", c.certFile, err)
		}
		return &pair, nil
	}
	_, err := config.GetClientCertificate(nil)
	return config, err
}

// source returns what the client asks for tokens; nil where there are none.
func (c *credentials) source() func(context.Context) (string, error) {
	if c.token == "" && c.tokenFile == "" {
		return nil
	}
	return func(context.Context) (string, error) { return c.current() }
}

// current is the token to be sent now, "" for none. The file counts before the
// environment: it was named on purpose.
func (c *credentials) current() (string, error) {
	if c.tokenFile == "" {
		return c.token, nil
	}
	f, err := os.Open(c.tokenFile)
	if err != nil {
		return "", fmt.Errorf("--token-file: %w", err)
	}
	defer f.Close()
	token, err := readToken(f)
	if err != nil {
		return "", fmt.Errorf("--token-file %s: %w", c.tokenFile, err)
	}
	return token, nil
}

// readToken never quotes what it reads.
func readToken(r io.Reader) (string, error) {
	text, err := io.ReadAll(io.LimitReader(r, tokenBytesMax+1))
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	switch {
	case len(text) > tokenBytesMax:
		return "", fmt.Errorf("longer than a token may be, %d bytes", tokenBytesMax)
	case token == "":
		return "", errors.New("no token in it")
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return "", errors.New("more than a token in it")
	}
	return token, nil
}

// authorize puts the token into a request.
func (a *app) authorize(r *http.Request) error {
	token, err := a.current()
	if err != nil || token == "" {
		return err
	}
	a.warnOfPlainText(r.URL.String())
	r.Header.Set("Authorization", "Bearer "+token)
	return nil
}

// warnOfPlainText says once that a token goes where others may read it.
func (a *app) warnOfPlainText(endpoints ...string) {
	if a.source() == nil {
		return
	}
	for _, endpoint := range endpoints {
		base, err := httpURL(endpoint, "8080")
		if err != nil || a.toldOfPlainText || !isPlainText(base) {
			continue
		}
		a.toldOfPlainText = true
		fmt.Fprintf(a.errOut, "warning: the token is sent to %s without TLS\n", base)
	}
}

// isPlainText reports whether what is sent to a URL leaves the machine unencrypted.
func isPlainText(base string) bool {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" || u.Hostname() == "localhost" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return ip == nil || !ip.IsLoopback()
}
