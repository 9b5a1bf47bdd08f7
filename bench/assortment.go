package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"

	"github.com/stockmesh/stockmesh/protocol"
)

// assortment is a set of SKUs that are sold evenly.
type assortment struct {
	prefix string // of each SKU
	count  int
}

// itemDigits is what follows the prefix: what a template writes for '~'.
const itemDigits = numberDigits

func (a assortment) sku(i int) string { return fmt.Sprintf("%s%0*d", a.prefix, itemDigits, i) }

// shop is what sells an assortment, and how much of each SKU.
type shop struct {
	assortment
	load *load
	sold []int64
}

// openShop enters the stock at the first of the endpoints and opens the connections.
func (r *round) openShop(ctx context.Context, gen *generator, t *target, a assortment) (*shop, error) {
	if err := a.enter(ctx, t.endpoint(0), func(int) int64 { return opening }); err != nil {
		return nil, err
	}
	s := &shop{assortment: a, load: newLoad(gen), sold: make([]int64, a.count)}
	s.load.onAck = s.book
	err := dialAll(ctx, t, r.connections, func(i int, d *dialed) error {
		sell := fmt.Sprintf(`{"op":"sell","id":#,"key":"%s-%d-#","lines":[{"sku":"%s~","quantity":1}]}`, a.prefix, i, a.prefix)
		return s.load.add(d, slotsFor(d.hello, protocol.InFlightMax), sell, a.count)
	})
	return s, err
}

// book takes a success.
func (s *shop) book(c *client, number uint64, _ []byte) { s.sold[c.template.item(number, 0)]++ }

// want is what should be on hand by the answers.
func (s *shop) want() map[string]int64 {
	want := make(map[string]int64)
	for i, sold := range s.sold {
		want[s.sku(i)] = opening - sold
	}
	return want
}

// enter counts the opening stock, many SKUs with one request.
func (a assortment) enter(ctx context.Context, endpoint string, onHand func(i int) int64) error {
	for from := 0; from < a.count; from += protocol.BatchMax {
		var counts []string
		for i := from; i < min(from+protocol.BatchMax, a.count); i++ {
			counts = append(counts, fmt.Sprintf(`{"op":"count","id":%d,"key":"opening-%s","sku":"%s","on_hand":%d}`, i, a.sku(i), a.sku(i), onHand(i)))
		}
		if err := postBatch(ctx, endpoint, "["+strings.Join(counts, ",")+"]"); err != nil {
			return fmt.Errorf("opening stock: %w", err)
		}
	}
	return nil
}

// postBatch sends commands that must all succeed to the node of an endpoint.
func postBatch(ctx context.Context, endpoint, commands string) error {
	u, err := url.Parse(endpoint)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+u.Host+"/v1/batch", strings.NewReader(commands))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if token, has := u.User.Password(); has {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.300s", resp.Status, b)
	}
	if err != nil {
		return fmt.Errorf("POST /v1/batch: %w", err)
	}
	return checkBatch(b)
}

func checkBatch(answer []byte) error {
	var batch struct {
		Results []struct {
			Error *protocol.Error `json:"error"`
		} `json:"results"`
	}
	if err := protocol.UnmarshalJSON(answer, &batch); err != nil {
		return err
	}
	var errs []error
	for _, result := range batch.Results {
		if result.Error != nil && len(errs) < faultsMax {
			errs = append(errs, result.Error)
		}
	}
	return errors.Join(errs...)
}

// checkShop holds the stock of every node of t against the answers.
func (r *round) checkShop(ctx context.Context, t *target, s *shop) error {
	for _, fault := range s.load.faults {
		r.violate("%s", fault)
	}
	if n := s.load.refused + s.load.falselyRefused; n > 0 {
		r.violate("%d sells were refused although there was stock", n)
	}
	want := s.want()
	for i, n := range t.nodes {
		stock, err := r.settledStockOf(ctx, t, i, want)
		if err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
		if maps.Equal(stock, want) {
			continue
		}
		wrong := 0
		for sku, units := range want {
			if stock[sku] != units {
				wrong++
			}
		}
		r.violate("%s shows %d SKUs of %d wrong after %d acknowledged sells", n.name, wrong, s.count, s.load.acked)
	}
	return nil
}
