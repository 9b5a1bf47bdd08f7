package peer

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// What the functions say where there is not enough stock.
const (
	postgresRefused   = "refused"
	postgresNotEnough = "ST001"
)

// postgresConn is one connection to PostgreSQL.
type postgresConn struct {
	*pgx.Conn
	work Work
}

// Close implements Client.
func (c *postgresConn) Close() error { return c.Conn.Close(context.Background()) }

// columns are an order's lines sorted by SKU: whoever locks rows in the same order as
// all others never waits in a circle.
func (c *postgresConn) columns(o Order) (skus []string, quantities []int64) {
	sorted := slices.SortedFunc(slices.Values(o.Lines), func(a, b Line) int { return a.SKU - b.SKU })
	for _, l := range sorted {
		skus, quantities = append(skus, c.work.SKU(l.SKU)), append(quantities, l.Quantity)
	}
	return skus, quantities
}

// postgresCaller asks by one call of a function.
type postgresCaller struct{ postgresConn }

// Sell implements Client.
func (c *postgresCaller) Sell(ctx context.Context, orders []Order) ([]bool, error) {
	o := orders[0] // the batch is one
	answer, err := c.call(ctx, "SELECT sell($1, $2, $3, $4)", o.Key, c.work.SKU(o.Lines[0].SKU), location, o.Lines[0].Quantity)
	return []bool{answer != postgresRefused}, err
}

// Reserve implements Reserver.
func (c *postgresCaller) Reserve(ctx context.Context, o Order) (bool, error) {
	skus, quantities := c.columns(o)
	_, err := c.call(ctx, "SELECT reserve($1, $2, $3, $4)", o.Key, skus, location, quantities)
	if refusal := (*pgconn.PgError)(nil); errors.As(err, &refusal) && refusal.Code == postgresNotEnough {
		return false, nil
	}
	return err == nil, err
}

// Settle implements Reserver.
func (c *postgresCaller) Settle(ctx context.Context, o Order, sold bool) error {
	_, err := c.call(ctx, "SELECT settle($1, $2, $3, $4)", settleKey(o), o.Key, location, sold)
	return err
}

func (c *postgresCaller) call(ctx context.Context, call string, args ...any) (answer string, err error) {
	err = c.QueryRow(ctx, call, args...).Scan(&answer)
	return answer, err
}

func settleKey(o Order) string { return o.Key + "-settle" }

// postgresTransactor asks statement by statement, as programs without functions in the
// database do.
type postgresTransactor struct{ postgresConn }

var errNotEnough = errors.New("not enough stock")

// transact carries out a key's statements once. errNotEnough leaves no trace.
func (c *postgresTransactor) transact(ctx context.Context, key, outcome string, do func(pgx.Tx) error) (bool, error) {
	err := pgx.BeginFunc(ctx, c.Conn, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, "INSERT INTO idempotency (key, outcome) VALUES ($1, $2) ON CONFLICT DO NOTHING", key, outcome)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		return do(tx)
	})
	if errors.Is(err, errNotEnough) {
		return false, nil
	}
	return err == nil, err
}

// Sell implements Client.
func (c *postgresTransactor) Sell(ctx context.Context, orders []Order) ([]bool, error) {
	o := orders[0] // the batch is one
	l := o.Lines[0]
	enough, err := c.transact(ctx, o.Key, "sold", func(tx pgx.Tx) error {
		const sell = "UPDATE stock SET on_hand = on_hand - $3 WHERE sku = $1 AND location = $2 AND on_hand - reserved >= $3"
		return changeOne(ctx, tx, sell, c.work.SKU(l.SKU), location, l.Quantity)
	})
	return []bool{enough}, err
}

func changeOne(ctx context.Context, tx pgx.Tx, update string, args ...any) error {
	tag, err := tx.Exec(ctx, update, args...)
	if err == nil && tag.RowsAffected() == 0 {
		return errNotEnough
	}
	return err
}

// Reserve implements Reserver.
func (c *postgresTransactor) Reserve(ctx context.Context, o Order) (bool, error) {
	skus, quantities := c.columns(o)
	return c.transact(ctx, o.Key, "reserved", func(tx pgx.Tx) error {
		const hold = "UPDATE stock SET reserved = reserved + $3 WHERE sku = $1 AND location = $2 AND on_hand - reserved >= $3"
		for i, sku := range skus {
			if err := changeOne(ctx, tx, hold, sku, location, quantities[i]); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, "INSERT INTO reservation (id, skus, quantities) VALUES ($1, $2, $3)", o.Key, skus, quantities)
		return err
	})
}

// Settle implements Reserver.
func (c *postgresTransactor) Settle(ctx context.Context, o Order, sold bool) error {
	done, err := c.transact(ctx, settleKey(o), "settled", func(tx pgx.Tx) error {
		var skus []string
		var quantities []int64
		row := tx.QueryRow(ctx, "DELETE FROM reservation WHERE id = $1 RETURNING skus, quantities", o.Key)
		if err := row.Scan(&skus, &quantities); err != nil {
			return fmt.Errorf("reservation %s: %w", o.Key, err)
		}
		for i, sku := range skus {
			const settle = "UPDATE stock SET reserved = reserved - $3, on_hand = on_hand - $4 WHERE sku = $1 AND location = $2"
			gone := int64(0)
			if sold {
				gone = quantities[i]
			}
			if err := changeOne(ctx, tx, settle, sku, location, quantities[i], gone); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && !done {
		return fmt.Errorf("reservation %s: %w", o.Key, errNotEnough)
	}
	return err
}
