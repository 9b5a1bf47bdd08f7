package main

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stockmesh/stockmesh/protocol"
)

// locationURN begins the URI that binds a client certificate to a location.
const locationURN = "urn:stockmesh:location:"

func (a *app) certsClientCommand() *cobra.Command {
	var f certFlags
	var name string
	var locations []string
	cmd := &cobra.Command{
		Use: "client", Short: "Make a till's certificate, signed by the CA in DIR", Args: cobra.NoArgs,
		Long: `Write DIR/NAME.pem and DIR/NAME-key.pem, signed by the CA that "stockctl certs ca" put in
DIR: what a till shows instead of a token. At nodes that were given the CA as --tls-ca, on a
port with TLS, it allows to watch, read the history, reserve, sell, adjust and count at its
locations, and nothing elsewhere.

Use a CA of its own for tills (another DIR), not the one of the nodes' --mesh-ca: what that
one signs is trusted between nodes.

To take a certificate back before it ends: "stockctl revoke".`,
		Example: `  stockctl certs ca --dir tills --name 'shop tills CA'
  stockctl certs client --dir tills --location store-12 --name POS-7
  stockctl --tls-cert tills/POS-7.pem --tls-key tills/POS-7-key.pem sell mug=1 -l store-12`,
		RunE: func(*cobra.Command, []string) error {
			if err := errors.Join(f.check(), checkClientName(name), checkLocations(locations)); err != nil {
				return err
			}
			return a.makeClient(&f, name, locations)
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "the till's name, as the history shows it")
	cmd.Flags().StringArrayVar(&locations, "location", nil, "where it may work, repeated for more")
	cmd.MarkFlagRequired("name")
	cmd.MarkFlagRequired("location")
	return f.add(cmd, 365)
}

// clientName fits into a file's name everywhere.
var clientName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,57}$`)

// checkClientName also refuses names whose files would be another's.
func checkClientName(name string) error {
	if !clientName.MatchString(name) {
		return fmt.Errorf("--name must be 1 to 58 characters of A-Z, a-z, 0-9 and . _ - in between, not %q", name)
	}
	if lower := strings.ToLower(name); lower == "ca" || strings.HasSuffix(lower, "-key") {
		return fmt.Errorf("a client named %q would share its files with the CA or with another's key", name)
	}
	return nil
}

func checkLocations(locations []string) error {
	for _, l := range locations {
		if e := protocol.CheckName("--location", l); e != nil {
			return fmt.Errorf("%s, not %q", e.Message, l)
		}
	}
	return nil
}

// madeClient also says what the certificate is revoked by.
type madeClient struct {
	madeFiles
	Subject string `json:"subject"`
	TokenID string `json:"token_id"`
}

func (a *app) makeClient(f *certFlags, name string, locations []string) error {
	ca, err := readCA(f.dir)
	if err != nil {
		return err
	}
	p, err := newClientPair(ca, name, locations, f.until())
	if err != nil {
		return err
	}
	files, err := p.write(f.dir, name, f.force)
	if err != nil {
		return err
	}
	files.CA = filepath.Join(f.dir, "ca.pem")
	made := madeClient{files, certificatePrefix + name, certificatePrefix + p.cert.SerialNumber.Text(16)}
	if a.json {
		return printJSON(a.out, made)
	}
	_, err = fmt.Fprintf(a.out, `Client %s for %s, valid until %s:
  %s
  %s

Nodes let it in with TLS on their public port and --tls-ca %s. Then:
  stockctl --endpoint https://NODE --tls-cert %s --tls-key %s get SKU
Should it be lost: stockctl revoke --token-id %s
`, name, strings.Join(locations, ", "), timeText(made.Expires), made.Cert, made.Key,
		shellWord(made.CA), shellWord(made.Cert), shellWord(made.Key), made.TokenID)
	return err
}

// newClientPair makes a certificate to call nodes with, not to be called.
func newClientPair(ca *pair, name string, locations []string, until time.Time) (*pair, error) {
	if until.After(ca.cert.NotAfter) {
		until = ca.cert.NotAfter // nobody would accept it any longer than that
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		NotAfter:              until,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, l := range locations {
		template.URIs = append(template.URIs, locationURI(l))
	}
	return sign(ca, template)
}

// locationURI escapes all but letters, digits and -._~, so that any way to read it back
// finds the same.
func locationURI(location string) *url.URL {
	scheme, rest, _ := strings.Cut(locationURN, ":")
	return &url.URL{Scheme: scheme, Opaque: rest + strings.ReplaceAll(url.QueryEscape(location), "+", "%20")}
}
