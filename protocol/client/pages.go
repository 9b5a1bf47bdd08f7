package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"

	"github.com/cenkalti/backoff/v5"

	"github.com/stockmesh/stockmesh/protocol"
)

// pageBytesMax bounds one page of items: PageMax of them with the longest names.
const pageBytesMax = 8 << 20

// Items reads all existing items that the selector picks, in order, page by
// page over HTTP. It ends after the first error. limit is the page's size; 0:
// the largest.
func (c *Client) Items(ctx context.Context, sel protocol.Selector, limit int) iter.Seq2[protocol.Item, error] {
	return func(yield func(protocol.Item, error) bool) {
		if limit <= 0 {
			limit = protocol.PageMax
		}
		for after := ""; ; {
			page, err := c.pageAgain(ctx, pageQuery(sel, after, limit))
			if err != nil {
				yield(protocol.Item{}, err)
				return
			}
			for _, it := range page.Items {
				if !yield(it, nil) {
					return
				}
			}
			if after = page.Next; after == "" {
				return
			}
		}
	}
}

func pageQuery(sel protocol.Selector, after string, limit int) string {
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	if after != "" {
		q.Set("after", after)
	}
	if !sel.All {
		q["sku"], q["prefix"] = sel.SKUs, sel.Prefixes
	}
	q["location"] = sel.Locations
	return q.Encode()
}

// pageAgain reads one page, from another node or later where that helps.
func (c *Client) pageAgain(ctx context.Context, query string) (protocol.Page, error) {
	var page protocol.Page
	refusals := 0
	read := func() error {
		err := c.page(ctx, query, &page)
		later := retryable(err)
		if d := retryPause(later); d > 0 && !c.cfg.FailFast {
			return &backoff.RetryAfterError{Duration: d}
		}
		if isUnauthorized(err) && later == nil && c.cfg.Token != nil {
			if refusals++; refusals < refusalsMax {
				return err // with another token, if there is one
			}
		}
		var refused *protocol.Error
		if c.cfg.FailFast || errors.As(err, &refused) && !refused.Retryable {
			return backoff.Permanent(err)
		}
		return err
	}
	_, err := backoff.Retry(ctx, func() (struct{}, error) { return struct{}{}, read() },
		backoff.WithBackOff(newBackoff(&c.cfg)), backoff.WithMaxElapsedTime(0))
	return page, err
}

func (c *Client) page(ctx context.Context, query string, page *protocol.Page) error {
	endpoint := c.Endpoint()
	if endpoint == "" {
		endpoint = c.endpoints.shuffled("")[0]
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, httpBase(endpoint)+"/v1/stock?"+query, nil)
	if err != nil {
		return err
	}
	token, err := c.token(ctx)
	if err != nil {
		return err
	}
	bear(request.Header, token)
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return problem(response, refusedAs(response.StatusCode))
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, pageBytesMax))
	if err != nil {
		return err
	}
	*page = protocol.Page{}
	if err := protocol.UnmarshalJSON(body, page); err != nil {
		return fmt.Errorf("client: unreadable page of %s: %w", endpoint, err)
	}
	return nil
}
