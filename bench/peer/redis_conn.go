package peer

import (
	"context"
	_ "embed"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed lua/sell.lua
	sellSource string
	//go:embed lua/reserve.lua
	reserveSource string
	//go:embed lua/settle.lua
	settleSource string

	redisSell    = redis.NewScript(sellSource)
	redisReserve = redis.NewScript(reserveSource)
	redisSettle  = redis.NewScript(settleSource)
)

const redisRefused = "refused"

// redisConn is one connection to Redis.
type redisConn struct {
	store  *redisStore
	client *redis.Client
	conn   *redis.Conn
	work   Work
}

// Close implements Client.
func (c *redisConn) Close() error { return closeAll(c.conn.Close, c.client.Close) }

// Sell implements Client.
func (c *redisConn) Sell(ctx context.Context, orders []Order) ([]bool, error) {
	return c.run(ctx, len(orders), func(p redis.Pipeliner, i int) *redis.Cmd {
		l := orders[i].Lines[0]
		return redisSell.EvalSha(ctx, p, []string{redisKey(orders[i].Key), redisSKU(c.work, l.SKU)}, l.Quantity, expirySeconds)
	})
}

// run sends n scripts at once and, where there is a replica, has it confirm them.
func (c *redisConn) run(ctx context.Context, n int, script func(redis.Pipeliner, int) *redis.Cmd) ([]bool, error) {
	answers, enough := make([]*redis.Cmd, n), make([]bool, n)
	var wait *redis.Cmd
	_, err := c.conn.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range n {
			answers[i] = script(p, i)
		}
		if c.store.replicas > 0 {
			wait = c.store.wait(ctx, p, commandTimeout)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i, a := range answers {
		text, err := a.Text()
		if err != nil {
			return nil, err
		}
		enough[i] = text != redisRefused
	}
	if wait != nil {
		return enough, c.store.confirmed(wait)
	}
	return enough, nil
}

// Reserve implements Reserver.
func (c *redisConn) Reserve(ctx context.Context, o Order) (bool, error) {
	keys, args := []string{redisKey(o.Key), redisReservation(o)}, []any{expirySeconds}
	for _, l := range o.Lines {
		keys, args = append(keys, redisSKU(c.work, l.SKU)), append(args, l.Quantity)
	}
	return c.one(ctx, redisReserve, keys, args...)
}

// Settle implements Reserver.
func (c *redisConn) Settle(ctx context.Context, o Order, sold bool) error {
	how := "released"
	if sold {
		how = "sold"
	}
	done, err := c.one(ctx, redisSettle, []string{redisKey(settleKey(o)), redisReservation(o)}, expirySeconds, how)
	if err == nil && !done {
		err = errors.New(redisRefused)
	}
	if err != nil {
		return fmt.Errorf("reservation %s: %w", o.Key, err)
	}
	return nil
}

func (c *redisConn) one(ctx context.Context, script *redis.Script, keys []string, args ...any) (bool, error) {
	enough, err := c.run(ctx, 1, func(p redis.Pipeliner, _ int) *redis.Cmd {
		return script.EvalSha(ctx, p, keys, args...)
	})
	if err != nil {
		return false, err
	}
	return enough[0], nil
}

func redisKey(key string) string { return "key:" + key }

func redisReservation(o Order) string { return "reservation:" + o.Key }
