package peer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Buckets of the NATS peer: one value per SKU, and the keys of commands.
const (
	natsStock = "stock"
	natsKeys  = "keys"
)

type natsStore struct {
	servers []*process
	url     string // of all of them
	copies  int

	conn *nats.Conn
	kv   jetstream.KeyValue // natsStock
}

// startNATS starts so many servers, each with a copy.
func startNATS(copies int) func(context.Context, Config) (Store, error) {
	return func(ctx context.Context, c Config) (Store, error) {
		s := &natsStore{copies: copies}
		if err := s.start(ctx, c); err != nil {
			return nil, errors.Join(err, s.Close())
		}
		return s, nil
	}
}

func (s *natsStore) start(ctx context.Context, c Config) error {
	addrs, err := c.Ports(2 * s.copies)
	if err != nil {
		return err
	}
	clients, routes := addrs[:s.copies], addrs[s.copies:]
	s.url = "nats://" + strings.Join(clients, ",nats://")
	for i, addr := range clients {
		p, err := c.launchNATS(i, addr, routes)
		if err != nil {
			return err
		}
		s.servers = append(s.servers, p)
	}
	for _, p := range s.servers {
		if err := p.await(ctx, s.connect); err != nil {
			return err
		}
	}
	return s.servers[0].await(ctx, s.prepare)
}

func (c Config) launchNATS(i int, addr string, routes []string) (*process, error) {
	dir, err := c.makeDir(NATS)
	if err != nil {
		return nil, err
	}
	route := routes[i]
	if len(routes) == 1 {
		routes = nil
	}
	conf := filepath.Join(dir, "nats.conf")
	text := natsConfig("peer-"+strconv.Itoa(i+1), addr, filepath.Join(dir, "data"), route, routes)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	p, err := c.launch(NATS, dir, "", nil, append(slices.Clone(c.Server), conf)...)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return p, nil
}

func (s *natsStore) connect(context.Context) (err error) {
	if s.conn == nil {
		s.conn, err = nats.Connect(s.url, nats.MaxReconnects(-1))
	}
	return err
}

// prepare makes the buckets, once the cluster has found itself.
func (s *natsStore) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	js, err := jetstream.New(s.conn)
	if err != nil {
		return err
	}
	s.kv, err = js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: natsStock, History: 1, Storage: jetstream.FileStorage, Replicas: s.copies})
	if err != nil {
		return err
	}
	_, err = js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: natsKeys, History: 1, TTL: keyExpiry, Storage: jetstream.FileStorage, Replicas: s.copies})
	return err
}

// Forms implements Store.
func (s *natsStore) Forms() []string { return []string{""} }

// Fill implements Store. Puts one after the other would take a minute for ten thousand.
func (s *natsStore) Fill(ctx context.Context, w Work) error {
	js, err := jetstream.New(s.conn, jetstream.WithPublishAsyncMaxPending(256), jetstream.WithPublishAsyncTimeout(commandTimeout))
	if err != nil {
		return err
	}
	value := []byte(strconv.FormatInt(w.Opening, 10))
	futures := make([]jetstream.PubAckFuture, w.SKUs)
	for i := range futures {
		if futures[i], err = js.PublishAsync("$KV."+natsStock+"."+w.SKU(i), value, jetstream.WithStallWait(commandTimeout)); err != nil {
			return err
		}
	}
	for _, f := range futures {
		select {
		case <-f.Ok():
		case err := <-f.Err():
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Read implements Store.
func (s *natsStore) Read(ctx context.Context, w Work) ([]Stock, error) {
	index, stock := make(map[string]int), make([]Stock, w.SKUs)
	for i, sku := range w.skus() {
		index[sku] = i
	}
	rows, err := s.kv.WatchAll(ctx)
	if err != nil {
		return nil, err
	}
	for row := range rows.Updates() {
		if row == nil { // those were all
			return stock, rows.Stop()
		}
		i, ok := index[row.Key()]
		if !ok {
			continue
		}
		if stock[i].OnHand, err = strconv.ParseInt(string(row.Value()), 10, 64); err != nil {
			return nil, errors.Join(err, rows.Stop())
		}
	}
	return nil, errors.Join(errors.New("the watch ended early"), ctx.Err())
}

// Close implements Store.
func (s *natsStore) Close() error {
	if s.conn != nil {
		s.conn.Close()
	}
	var errs []error
	for _, p := range s.servers {
		errs = append(errs, p.stop())
	}
	return errors.Join(errs...)
}

// Dial implements Store.
func (s *natsStore) Dial(ctx context.Context, _ string, w Work) (Client, error) {
	conn, err := nats.Connect(s.url)
	if err != nil {
		return nil, err
	}
	c := &natsConn{conn: conn, work: w}
	js, err := jetstream.New(conn)
	if err == nil {
		c.stock, err = js.KeyValue(ctx, natsStock)
	}
	if err == nil {
		c.keys, err = js.KeyValue(ctx, natsKeys)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// natsConn sells by compare-and-set.
type natsConn struct {
	conn        *nats.Conn
	stock, keys jetstream.KeyValue
	work        Work
}

// Close implements Client.
func (c *natsConn) Close() error {
	c.conn.Close()
	return nil
}

// Sell implements Client. It takes the key first: whoever finds it taken has sold
// before.
func (c *natsConn) Sell(ctx context.Context, orders []Order) ([]bool, error) {
	o := orders[0] // the batch is one
	_, err := c.keys.Create(ctx, o.Key, []byte("sold"))
	if errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return []bool{true}, nil
	}
	if err != nil {
		return nil, err
	}
	enough, err := c.take(ctx, c.work.SKU(o.Lines[0].SKU), o.Lines[0].Quantity)
	if err == nil && !enough {
		err = c.keys.Delete(ctx, o.Key) // a refusal leaves no trace
	}
	return []bool{enough}, err
}

// take reads and writes until nobody else has written in between.
func (c *natsConn) take(ctx context.Context, sku string, n int64) (enough bool, err error) {
	for {
		row, err := c.stock.Get(ctx, sku)
		if err != nil {
			return false, fmt.Errorf("get: %w", err)
		}
		onHand, err := strconv.ParseInt(string(row.Value()), 10, 64)
		if err != nil || onHand < n {
			return false, err
		}
		_, err = c.stock.Update(ctx, sku, strconv.AppendInt(nil, onHand-n, 10), row.Revision())
		if !errors.Is(err, jetstream.ErrKeyRevisionMismatch) { // else somebody else's write came first
			return err == nil, err
		}
	}
}
