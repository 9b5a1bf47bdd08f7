package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

const (
	answerBytesMax = 16 << 20
	// connectTimeout also bounds what has no other limit: an address that drops packets
	// would hold a backup up for minutes.
	connectTimeout = 10 * time.Second
)

// notFollowed: nodes never redirect. Followed, it would turn what changes something into
// a GET, and might take the token along.
func notFollowed(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// httpClient is for commands that ask a node once: it keeps no connection.
func (a *app) httpClient() (*http.Client, error) {
	config, err := a.tls()
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: &http.Transport{
		Proxy:             http.ProxyFromEnvironment,
		DialContext:       (&net.Dialer{Timeout: connectTimeout}).DialContext,
		TLSClientConfig:   config,
		DisableKeepAlives: true,
	}, CheckRedirect: notFollowed}, nil
}

// readAnswer reads a JSON answer to its end and closes it. A status other than 200 is
// an error, a *protocol.Error where the node gave its reason.
func readAnswer(endpoint string, r *http.Response, answer any) error {
	defer r.Body.Close()
	body, err := io.ReadAll(io.LimitReader(r.Body, answerBytesMax))
	if err != nil {
		return err
	}
	if r.StatusCode != http.StatusOK {
		return refusedBy(endpoint, r, body)
	}
	if err := protocol.UnmarshalJSON(body, answer); err != nil {
		return fmt.Errorf("%s: unreadable answer: %w", endpoint, err)
	}
	return nil
}

// refusedBy reads a problem (RFC 9457); what isn't one comes from something that
// is no node, or from a proxy before one, and another endpoint may do.
func refusedBy(endpoint string, r *http.Response, body []byte) error {
	var p struct {
		protocol.Error
		Detail string `json:"detail"`
	}
	if protocol.UnmarshalJSON(body, &p) != nil || p.Code == "" {
		switch r.StatusCode {
		case http.StatusUnauthorized:
			return protocol.NewError(protocol.CodeUnauthorized, "%s says %s", endpoint, r.Status)
		case http.StatusForbidden:
			return protocol.NewError(protocol.CodeForbidden, "%s says %s", endpoint, r.Status)
		}
		return fmt.Errorf("%s: %s", endpoint, r.Status)
	}
	if p.Message == "" {
		p.Message = p.Detail
	}
	return &p.Error
}

// httpURL reads an endpoint by the client's rules: a bare host is http, at the port
// given unless it names one.
func httpURL(endpoint, port string) (string, error) {
	s := strings.TrimSpace(endpoint)
	if !strings.Contains(s, "://") {
		s = "http://" + s
		if u, err := url.Parse(s); err == nil && u.Port() == "" && u.Hostname() != "" {
			s = "http://" + net.JoinHostPort(u.Hostname(), port)
		}
	}
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" {
		return "", fmt.Errorf("endpoint %q: want ws, wss, http or https and a host", endpoint)
	}
	switch u.Scheme {
	case "ws", "http":
		return "http://" + u.Host, nil
	case "wss", "https":
		return "https://" + u.Host, nil
	}
	return "", fmt.Errorf("endpoint %q: want ws, wss, http or https", endpoint)
}
