package peer

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"
)

// Forms of asking PostgreSQL.
const (
	byTransaction = "transaction" // the client begins, changes and commits
	byFunction    = "function"    // one call, which is one transaction and one round trip
)

//go:embed sql/schema.sql
var schema string

// postgresPlaces are where distributions keep the server's programs.
var postgresPlaces = []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin", "/usr/local/opt/postgresql*/bin", "/usr/local/pgsql/bin"}

// findServerPrograms returns the directory of initdb and postgres: the one in PATH, or the
// newest of the usual places.
func findServerPrograms(places []string) (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		if resolved, err := filepath.EvalSymlinks(path); err == nil {
			path = resolved
		}
		if both(filepath.Dir(path)) {
			return filepath.Dir(path), nil
		}
	}
	var found []string
	for _, place := range places {
		dirs, _ := filepath.Glob(place) // the patterns are right
		slices.SortFunc(dirs, byVersion)
		found = append(found, slices.DeleteFunc(dirs, func(d string) bool { return !both(d) })...)
	}
	if len(found) == 0 {
		return "", Missing{"PostgreSQL server", "apt install postgresql"}
	}
	return found[len(found)-1], nil
}

// byVersion puts the longer number last: 9 before 10.
func byVersion(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	if a < b {
		return -1
	}
	return 1
}

func both(dir string) bool {
	for _, program := range []string{"initdb", "postgres"} {
		if _, err := os.Stat(filepath.Join(dir, program)); err != nil {
			return false
		}
	}
	return true
}

func findPostgres(Config) error {
	if _, err := findServerPrograms(postgresPlaces); err != nil {
		return err
	}
	_, err := postgresUser(os.Geteuid())
	return err
}

// postgresUser is whom the server runs as, "UID:GID": it refuses to be root. "" is us.
func postgresUser(uid int) (string, error) {
	if uid != 0 {
		return "", nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			return u.Uid + ":" + u.Gid, nil
		}
	}
	return "", errors.New("PostgreSQL does not run as root, and there is no user postgres or nobody here")
}

// connectionsSpare are those of whoever does not measure, and those that were closed and
// still end.
const connectionsSpare = 100

// postgresConfig is what differs from the server's defaults: durable, and as fast as
// that can be for short transactions.
func postgresConfig(port string) string {
	return lines(
		"listen_addresses = '127.0.0.1'",
		"port = "+port,
		"unix_socket_directories = ''",
		"max_connections = "+strconv.Itoa(connectionsMax+connectionsSpare),
		"fsync = on",
		"synchronous_commit = on",
		"full_page_writes = on",
		"shared_buffers = 128MB",
		"wal_level = minimal", // no standby reads it
		"max_wal_senders = 0",
		"max_wal_size = 4GB", // no checkpoint falls into a phase
		"checkpoint_timeout = 30min",
		"jit = off",
	)
}

type postgres struct {
	*process
	url string
}

func startPostgres(ctx context.Context, c Config) (Store, error) {
	bin, err := findServerPrograms(postgresPlaces)
	if err != nil {
		return nil, err
	}
	as, err := postgresUser(os.Geteuid())
	if err != nil {
		return nil, err
	}
	addrs, err := c.Ports(1)
	if err != nil {
		return nil, err
	}
	dir, err := c.makeDir(Postgres)
	if err != nil {
		return nil, err
	}
	p := &postgres{}
	if p.url, err = layPostgres(dir, as, addrs[0]); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	p.process, err = c.launch(Postgres, dir, as, nil, "/bin/sh", "-c", postgresScript, bin, postgresSuperuser)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := p.await(ctx, p.prepare); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

const postgresSuperuser = "stock"

// postgresScript makes a data directory and becomes its server: both under one keeper.
const postgresScript = `"$0/initdb" -D data -U "$1" -A scram-sha-256 --pwfile=password --no-locale -E UTF8 --no-sync &&
echo "include '../peer.conf'" >>data/postgresql.conf &&
exec "$0/postgres" -D data`

// layPostgres lays out what the script needs, and returns how to connect to the server.
func layPostgres(dir, as, addr string) (url string, err error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	// Other people may be on this machine, and a database's superuser may run programs.
	password := rand.Text()
	data, secret, conf := filepath.Join(dir, "data"), filepath.Join(dir, "password"), filepath.Join(dir, "peer.conf")
	err = errors.Join(os.Mkdir(data, 0o700), os.WriteFile(secret, []byte(password), 0o600), os.WriteFile(conf, []byte(postgresConfig(port)), 0o600))
	if err == nil && as != "" {
		err = give(as, data, secret, conf)
	}
	return fmt.Sprintf("postgres://%s:%s@%s/postgres", postgresSuperuser, password, addr), err
}

// give hands files to somebody else.
func give(as string, files ...string) error {
	uid, gid, err := identity(as)
	for _, f := range files {
		err = errors.Join(err, os.Chown(f, int(uid), int(gid)))
	}
	return err
}

// prepare makes the tables; again where it was not ready.
func (p *postgres) prepare(ctx context.Context) error {
	return p.with(ctx, func(c *pgx.Conn) error {
		_, err := c.Exec(ctx, schema)
		return err
	})
}

func (p *postgres) with(ctx context.Context, do func(*pgx.Conn) error) error {
	c, err := pgx.Connect(ctx, p.url)
	if err != nil {
		return err
	}
	return errors.Join(do(c), c.Close(ctx))
}

// Forms implements Store.
func (p *postgres) Forms() []string { return []string{byTransaction, byFunction} }

// Fill implements Store.
func (p *postgres) Fill(ctx context.Context, w Work) error {
	return p.with(ctx, func(c *pgx.Conn) error {
		const fill = "INSERT INTO stock (sku, location, on_hand) SELECT sku, $2, $3 FROM unnest($1::text[]) sku"
		if _, err := c.Exec(ctx, fill, w.skus(), location, w.Opening); err != nil {
			return err
		}
		_, err := c.Exec(ctx, "VACUUM ANALYZE stock")
		return err
	})
}

// Read implements Store.
func (p *postgres) Read(ctx context.Context, w Work) ([]Stock, error) {
	stock := make([]Stock, w.SKUs)
	err := p.with(ctx, func(c *pgx.Conn) error {
		const read = "SELECT i, on_hand, reserved FROM unnest($1::text[]) WITH ORDINALITY AS asked(sku, i) JOIN stock USING (sku) WHERE location = $2"
		rows, err := c.Query(ctx, read, w.skus(), location)
		if err != nil {
			return err
		}
		var i int
		var s Stock
		_, err = pgx.ForEachRow(rows, []any{&i, &s.OnHand, &s.Reserved}, func() error {
			stock[i-1] = s
			return nil
		})
		return err
	})
	return stock, err
}

// Close implements Store.
func (p *postgres) Close() error { return p.stop() }

// Dial implements Store.
func (p *postgres) Dial(ctx context.Context, form string, w Work) (Client, error) {
	c, err := pgx.Connect(ctx, p.url)
	if err != nil {
		return nil, err
	}
	if form == byFunction {
		return &postgresCaller{postgresConn{c, w}}, nil
	}
	return &postgresTransactor{postgresConn{c, w}}, nil
}
