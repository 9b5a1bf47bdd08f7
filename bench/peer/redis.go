package peer

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

const redisServer = "redis-server"

func findRedis(Config) error {
	if _, err := exec.LookPath(redisServer); err != nil {
		return Missing{"Redis server", "apt install redis-server"}
	}
	return nil
}

// redisConfig is what differs from the server's defaults: durable, and no snapshots that
// would fall into a phase. primary is the address of what it copies, "" if nothing.
func redisConfig(port, dir, password, primary string) string {
	conf := lines(
		"bind 127.0.0.1",
		"port "+port,
		"dir "+strconv.Quote(dir),
		"requirepass "+password, // other people may be on this machine
		"masterauth "+password,
		"appendonly yes",
		"appendfsync always",
		"auto-aof-rewrite-percentage 0",
		`save ""`,
		"maxclients 2000",
		"repl-diskless-sync-delay 0", // there is one replica to wait for
	)
	if host, port, err := net.SplitHostPort(primary); err == nil {
		conf += lines("replicaof "+host+" "+port, "repl-diskless-load on-empty-db")
	}
	return conf
}

type redisStore struct {
	options  *redis.Options // of a connection to the first
	servers  []*process     // the one that is asked, and its replica where there is one
	replicas int            // that have to have a command before it is answered
	admin    *redis.Client
}

// startRedis starts a server, or two where the second copies the first.
func startRedis(replicated bool) func(context.Context, Config) (Store, error) {
	return func(ctx context.Context, c Config) (Store, error) {
		s := &redisStore{}
		if replicated {
			s.replicas = 1
		}
		if err := s.start(ctx, c); err != nil {
			return nil, errors.Join(err, s.Close())
		}
		return s, nil
	}
}

func (s *redisStore) start(ctx context.Context, c Config) error {
	addrs, err := c.Ports(1 + s.replicas)
	if err != nil {
		return err
	}
	s.options = &redis.Options{Addr: addrs[0], Password: rand.Text(), DisableIdentity: true, ReadTimeout: commandTimeout, WriteTimeout: commandTimeout, MaxRetries: -1}
	s.admin = redis.NewClient(s.options)
	for i, addr := range addrs {
		primary := ""
		if i > 0 {
			primary = addrs[0]
		}
		p, err := c.launchRedis(addr, s.options.Password, primary)
		if err != nil {
			return err
		}
		s.servers = append(s.servers, p)
	}
	return s.servers[len(s.servers)-1].await(ctx, s.ready)
}

func (c Config) launchRedis(addr, password, primary string) (*process, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	dir, err := c.makeDir(Redis)
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "redis.conf")
	if err := os.WriteFile(conf, []byte(redisConfig(port, dir, password, primary)), 0o600); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	p, err := c.launch(Redis, dir, "", nil, redisServer, conf)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return p, nil
}

// ready writes something, and has the replica confirm it.
func (s *redisStore) ready(ctx context.Context) error {
	conn := s.admin.Conn()
	defer conn.Close()
	if err := conn.Set(ctx, "ready", "", 0).Err(); err != nil {
		return err
	}
	if s.replicas == 0 {
		return nil
	}
	return s.confirmed(s.wait(ctx, conn, readyPoll))
}

// wait asks for as many copies of what the connection has written before.
func (s *redisStore) wait(ctx context.Context, on interface {
	Do(context.Context, ...any) *redis.Cmd
}, patience time.Duration) *redis.Cmd {
	return on.Do(ctx, "WAIT", s.replicas, patience.Milliseconds())
}

var errNotCopied = errors.New("the replica has not confirmed a command in time")

func (s *redisStore) confirmed(wait *redis.Cmd) error {
	n, err := wait.Int()
	if err == nil && n < s.replicas {
		err = errNotCopied
	}
	return err
}

// Forms implements Store.
func (s *redisStore) Forms() []string { return []string{""} }

const redisFillBatch = 1000

// Fill implements Store.
func (s *redisStore) Fill(ctx context.Context, w Work) error {
	for from := 0; from < w.SKUs; from += redisFillBatch {
		_, err := s.admin.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i := from; i < min(from+redisFillBatch, w.SKUs); i++ {
				p.HSet(ctx, redisSKU(w, i), "on_hand", w.Opening, "reserved", 0)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, script := range []*redis.Script{redisSell, redisReserve, redisSettle} {
		if err := script.Load(ctx, s.admin).Err(); err != nil {
			return err
		}
	}
	return nil
}

func redisSKU(w Work, i int) string { return "stock:" + w.SKU(i) }

// Read implements Store.
func (s *redisStore) Read(ctx context.Context, w Work) ([]Stock, error) {
	stock := make([]Stock, w.SKUs)
	rows := make([]*redis.SliceCmd, w.SKUs)
	_, err := s.admin.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range rows {
			rows[i] = p.HMGet(ctx, redisSKU(w, i), "on_hand", "reserved")
		}
		return nil
	})
	for i, row := range rows {
		var read struct {
			OnHand   int64 `redis:"on_hand"`
			Reserved int64 `redis:"reserved"`
		}
		err = errors.Join(err, row.Scan(&read))
		stock[i] = Stock{OnHand: read.OnHand, Reserved: read.Reserved}
	}
	return stock, err
}

// Close implements Store.
func (s *redisStore) Close() error {
	errs := []error{s.admin.Close()}
	for _, p := range s.servers {
		errs = append(errs, p.stop())
	}
	return errors.Join(errs...)
}

// Dial implements Store.
func (s *redisStore) Dial(ctx context.Context, _ string, w Work) (Client, error) {
	o := *s.options
	o.PoolSize = 1
	client := redis.NewClient(&o)
	c := &redisConn{store: s, client: client, conn: client.Conn(), work: w}
	if err := c.conn.Ping(ctx).Err(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

const expirySeconds = int64(keyExpiry / time.Second)
