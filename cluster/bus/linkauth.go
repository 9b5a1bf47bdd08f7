package bus

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
)

// meshIdentity is the scheme of the URI by which a certificate names a node:
// stockmesh://REGION/NODE.
const meshIdentity = "stockmesh"

// password is what the dialling region proves itself with to the listening one, made
// of the first secret; "" when there is none.
func password(secrets []string, dialler, listener string) string {
	if len(secrets) == 0 {
		return ""
	}
	return signed(secrets[0], dialler, listener)
}

func signed(secret, dialler, listener string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte("stockmesh link " + dialler + " " + listener))
	return hex.EncodeToString(mac.Sum(nil))
}

// lets tells whether a link of the region dialler may log in here with this password
// and these certificates.
func (m *mesh) lets(dialler, pass string, state *tls.ConnectionState) error {
	m.mu.Lock()
	p := m.peers[dialler]
	known := p != nil && !p.Dial
	m.mu.Unlock()
	if !known {
		return fmt.Errorf("region %q is not expected to dial", dialler)
	}
	if m.config.TLS != nil {
		if state == nil {
			return errors.New("no TLS")
		}
		if err := namesRegion(state.PeerCertificates, dialler); err != nil {
			return err
		}
	}
	secrets := m.config.secrets()
	if len(secrets) == 0 {
		return nil
	}
	for _, s := range secrets {
		if hmac.Equal([]byte(pass), []byte(signed(s, dialler, m.config.Region))) {
			return nil
		}
	}
	return errors.New("wrong password")
}

// namesRegion refuses a certificate made out to another region.
func namesRegion(chain []*x509.Certificate, region string) error {
	if len(chain) == 0 {
		return errors.New("the other side shows no certificate")
	}
	for _, u := range chain[0].URIs {
		if u.Scheme == meshIdentity && !strings.EqualFold(u.Host, region) {
			return fmt.Errorf("the other side's certificate is for region %q, not %q", u.Host, region)
		}
	}
	return nil
}

// speaksFor makes c take only certificates of one region.
func speaksFor(c *tls.Config, region string) *tls.Config {
	c = c.Clone()
	more := c.VerifyConnection
	c.VerifyConnection = func(state tls.ConnectionState) error {
		if more != nil {
			if err := more(state); err != nil {
				return err
			}
		}
		return namesRegion(state.PeerCertificates, region)
	}
	return c
}

// permissions is the allow-list of a link that the region peer has dialled. The
// server applies it here, and sends it to the other side, which applies it too.
func (m *mesh) permissions(peer string) *server.Permissions {
	us := m.config.Region
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: crossing(peer, us, m.config.buckets())},
		Subscribe: &server.SubjectPermission{Allow: crossing(us, peer, m.config.buckets())},
	}
}

// crossing lists the subjects that may cross a link from one region to another. All
// of them name both regions, or the one that is asked, so nothing travels further.
// DESIGN.md tells what each is for.
func crossing(from, to string, buckets []string) []string {
	subjects := []string{
		siteSubject(to, from, ">"),
		deliveries(to, from) + ".>",
		"$JSC.R." + from + ".>",
	}
	for _, b := range buckets {
		subjects = append(subjects, "$JS.FC."+to+".*.KV_"+b+".>")
	}
	return subjects
}

// denied is what this side, where it dials, lets in from nobody, whatever allow-list
// the other side sends.
func (m *mesh) denied() []string {
	return []string{"$JS.API.>", "$JS." + m.config.Region + ".API.>", "$KV.>", "$O.>", "$SYS.>", "log.>", "shard.>", "_INBOX.>"}
}

// accounts lets the in-process connections choose their account: that for the
// data, or the system account, whose users alone may change the region's members.
// Links of other regions get the data account, and the subjects of their allow-list.
type accounts struct {
	srv  *server.Server
	mesh *mesh // nil: there are no links
	log  *serverLog
}

// Check implements server.Authentication.
func (a *accounts) Check(c server.ClientAuthentication) bool {
	switch c.Kind() {
	case server.CLIENT:
		to := a.srv.GlobalAccount()
		if c.GetOpts().Username == systemUser {
			to = a.srv.SystemAccount()
		}
		c.RegisterUser(&server.User{Account: to})
		return true
	case server.LEAF:
		return a.mesh != nil && a.link(c)
	}
	return false
}

func (a *accounts) link(c server.ClientAuthentication) bool {
	o := c.GetOpts()
	if err := a.mesh.lets(o.Username, o.Password, c.GetTLSConnectionState()); err != nil {
		a.log.to.Debug("a link was refused", "region", o.Username, "from", c.RemoteAddress(), "error", err)
		return false
	}
	c.RegisterUser(&server.User{Username: o.Username, Account: a.srv.GlobalAccount(), Permissions: a.mesh.permissions(o.Username)})
	return true
}
