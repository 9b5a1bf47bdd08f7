package token

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"
)

// sourceBytesMax bounds what is read of a source.
const sourceBytesMax = 1 << 20

// source is where keys come from.
type source interface {
	// read returns all of it. Errors quote nothing of what was read, nor a URL's query.
	read(ctx context.Context) ([]byte, error)
	// local is true for what costs nothing to read, so that it may be done each tick, and
	// must be there at the start.
	local() bool
}

func newSource(keys string, client *http.Client) (source, error) {
	if !strings.Contains(keys, "://") {
		return fileSource(keys), nil
	}
	u, err := url.Parse(keys)
	if err != nil || u.Host == "" {
		return nil, errors.New("token keys: no URL that can be read")
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
		return nil, errors.New("token keys: the URL must be https, or http to loopback: whoever changes the keys on their way makes tokens at will")
	}
	return &urlSource{url: u.String(), client: withoutRedirects(client)}, nil
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// withoutRedirects returns a client that answers with a redirect instead of following it:
// the address given is the one trusted.
func withoutRedirects(given *http.Client) *http.Client {
	var c http.Client
	if given != nil {
		c = *given
	}
	if c.Transport == nil {
		c.Transport = &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DisableKeepAlives:      true, // minutes pass between two readings
			ForceAttemptHTTP2:      true,
			TLSHandshakeTimeout:    5 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
		}
	}
	c.Jar = nil
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &c
}

type urlSource struct {
	url    string
	client *http.Client
}

func (s *urlSource) local() bool { return false }

func (s *urlSource) read(ctx context.Context) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, bare(err)
	}
	request.Header.Set("Accept", "application/jwk-set+json, application/json")
	response, err := s.client.Do(request)
	if err != nil {
		return nil, bare(err)
	}
	defer response.Body.Close()
	switch {
	case response.StatusCode >= 300 && response.StatusCode < 400:
		return nil, fmt.Errorf("it answers %d, and redirects are not followed: give the address of the keys themselves", response.StatusCode)
	case response.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("it answers %d", response.StatusCode)
	}
	return readAll(response.Body)
}

// bare takes the URL out of an error: its query may hold a secret.
func bare(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return wrapped.Err
	}
	return err
}

func readAll(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, sourceBytesMax+1))
	if err != nil {
		return nil, err
	}
	if len(text) > sourceBytesMax {
		return nil, fmt.Errorf("more than %d bytes", sourceBytesMax)
	}
	return text, nil
}

// fileSource is a file's name.
type fileSource string

func (s fileSource) local() bool { return true }

func (s fileSource) read(context.Context) ([]byte, error) {
	info, err := os.Stat(string(s))
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", s) // opening a pipe would block
	}
	f, err := os.Open(string(s))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f)
}
