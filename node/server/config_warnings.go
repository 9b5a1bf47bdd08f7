package server

import "net"

// Warnings says what the configuration allows that it better would not. A node logs it
// when it starts.
func (c *Config) Warnings() (list []string) {
	warn := func(when bool, text string) {
		if when {
			list = append(list, text)
		}
	}
	if c.JWKS == "" {
		warn(c.Insecure, "clients are not authenticated, as there is no --jwks: whoever reaches --listen or --admin may do everything")
	} else {
		warn(!loopbackOnly(c.Listen) && c.TLSCert == "" && len(c.TrustedProxies) == 0, "tokens come to --listen in the clear: use --tls-cert and --tls-key, or a proxy that ends TLS, named by --trusted-proxies")
		warn(c.JWTIssuer == "" || c.JWTAudience == "", "any token signed with the keys of --jwks is taken, whoever it was made for: use --jwt-issuer and --jwt-audience")
		warn(!loopbackOnly(c.Admin), "tokens come to --admin in the clear: keep it off networks that others read")
	}
	open := c.GossipKey == "" && !c.Insecure
	warn(open && c.clustered(), "membership is not encrypted: whoever reaches --gossip can name nodes to clients, though not join the region; use --gossip-key")
	warn(open && c.meshed(), "membership between regions is not encrypted: whoever reaches --wan-gossip can name nodes to clients, though not link to the region; use --gossip-key")
	clear := c.Insecure && c.MeshCert == ""
	warn(clear && (c.clustered() || c.meshed()), "nodes and regions don't show each other certificates: whoever reaches --cluster-listen or --link-listen may speak for a node; use --mesh-cert, --mesh-key and --mesh-ca")
	return list
}

// loopbackOnly reports whether an address is reached from this machine alone.
func loopbackOnly(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err == nil && isLoopback(host)
}
