package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/stockmesh/stockmesh/protocol"
)

const defaultAdmin = "http://127.0.0.1:8081"

// operateTimeout is longer than a node tries (30 s), so that its reason is heard.
const operateTimeout = 40 * time.Second

// adminFlag adds --admin to what talks to a node's admin port.
func (a *app) adminFlag(flags *pflag.FlagSet) {
	url := os.Getenv("STOCKMESH_ADMIN")
	if url == "" {
		url = defaultAdmin
	}
	flags.StringVar(&a.admin, "admin", url, "`URL` of a node's admin port [STOCKMESH_ADMIN]")
}

// adminURL also takes what nodes are given in STOCKMESH_ADMIN: an address to listen at,
// where no host means all of them.
func adminURL(s string) (string, error) {
	s = strings.TrimSpace(s)
	if host, port, err := net.SplitHostPort(s); err == nil && (host == "" || net.ParseIP(host).IsUnspecified()) {
		s = net.JoinHostPort("localhost", port)
	}
	base, err := httpURL(s, "8081")
	if err != nil {
		return "", fmt.Errorf("--admin: %w", err)
	}
	return base, nil
}

// operate has the node do something; body may be nil.
func (a *app) operate(ctx context.Context, method, path string, body, answer any) error {
	ctx, cancel := limited(ctx, a.timeoutOr(operateTimeout))
	defer cancel()
	response, err := a.askAdmin(ctx, method, path, body)
	if err != nil {
		return err
	}
	return readAnswer(a.admin, response, answer)
}

// askAdmin returns an answer of status 200, to be closed.
func (a *app) askAdmin(ctx context.Context, method, path string, body any) (*http.Response, error) {
	base, err := adminURL(a.admin)
	if err != nil {
		return nil, err
	}
	c, err := a.httpClient()
	if err != nil {
		return nil, err
	}
	request, err := adminRequest(ctx, method, base+path, body)
	if err != nil {
		return nil, err
	}
	if err := a.authorize(request); err != nil {
		return nil, err
	}
	response, err := c.Do(request)
	if err != nil {
		return nil, &unreachable{[]string{base}, err}
	}
	if response.StatusCode != http.StatusOK {
		return nil, notOperated(base, response)
	}
	return response, nil
}

func adminRequest(ctx context.Context, method, url string, body any) (*http.Request, error) {
	if body == nil {
		return http.NewRequestWithContext(ctx, method, url, nil)
	}
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(protocol.AppendJSON(nil, body)))
	if err == nil {
		r.Header.Set("Content-Type", "application/json")
	}
	return r, err
}

// operationRefused is the reason that a node gave. Its code, made for programs that
// sell, would say nothing to an operator; its status is for callers that know better.
type operationRefused struct {
	base, reason string
	status       int
}

func (e *operationRefused) Error() string {
	return fmt.Sprintf("%s\n  answered by %s with %d %s", e.reason, e.base, e.status, http.StatusText(e.status))
}

func notOperated(base string, r *http.Response) error {
	err := readAnswer(base, r, nil)
	var p *protocol.Error
	switch {
	case errors.As(err, &p) && (p.Code == protocol.CodeUnauthorized || p.Code == protocol.CodeForbidden):
		return p // these say more to an operator than a status
	case errors.As(err, &p):
		return &operationRefused{base, p.Message, r.StatusCode}
	case r.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%w: is that the admin port of a node?", err)
	}
	return err
}

// isConflict reports whether the node could do it but won't as things are.
func isConflict(err error) bool {
	var refused *operationRefused
	return errors.As(err, &refused) && refused.status == http.StatusConflict
}
