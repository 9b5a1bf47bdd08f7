package peer

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/redis/go-redis/v9"
)

//go:embed ws/server.js ws/change.lua
var pusherFiles embed.FS

// pusherModules are those of npm that the server needs.
var pusherModules = []string{"ws", "redis"}

func findPusher(c Config) error {
	node, err := findNode()
	if err != nil {
		return err
	}
	if _, err := findModules(moduleDirs(c.Modules, os.Getenv("NODE_PATH"), node)); err != nil {
		return err
	}
	return findRedis(c)
}

func findNode() (string, error) {
	for _, name := range []string{"node", "nodejs"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", Missing{"Node.js", "apt install nodejs"}
}

// moduleDirs are the directories that modules may be in: those that we are told, those
// of NODE_PATH, and those of global installations.
func moduleDirs(told []string, nodePath, node string) (dirs []string) {
	for _, dir := range told {
		dirs = append(dirs, dir, filepath.Join(dir, "node_modules"))
	}
	for _, dir := range filepath.SplitList(nodePath) {
		if dir != "" {
			dirs = append(dirs, dir)
		}
	}
	return append(dirs, filepath.Join(filepath.Dir(node), "..", "lib", "node_modules"), "/usr/local/lib/node_modules", "/usr/lib/node_modules", "/usr/share/nodejs")
}

// findModules returns the first directory that has all of them.
func findModules(dirs []string) (string, error) {
	for _, dir := range dirs {
		lacks := func(module string) bool {
			_, err := os.Stat(filepath.Join(dir, module, "package.json"))
			return err != nil
		}
		if !slices.ContainsFunc(pusherModules, lacks) {
			return filepath.Abs(dir)
		}
	}
	return "", Missing{"modules ws and redis", "npm install --prefix DIR ws redis, then --peer-modules DIR"}
}

// Pusher is a running WebSocket server with Redis behind it. It understands what
// stockmesh's clients say in JSON, as far as ws/server.js goes.
type Pusher struct {
	URL   string
	redis Store
	node  *process
}

// StartPusher starts both. An error is a [StartError].
func StartPusher(ctx context.Context, c Config) (*Pusher, error) {
	p := &Pusher{}
	if err := p.start(ctx, c); err != nil {
		return nil, &StartError{errors.Join(err, p.Close())}
	}
	return p, nil
}

func (p *Pusher) start(ctx context.Context, c Config) (err error) {
	node, err := findNode()
	if err != nil {
		return err
	}
	modules, err := findModules(moduleDirs(c.Modules, os.Getenv("NODE_PATH"), node))
	if err != nil {
		return err
	}
	if p.redis, err = startRedis(false)(ctx, c); err != nil {
		return err
	}
	addrs, err := c.Ports(1)
	if err != nil {
		return err
	}
	if err := p.launch(c, node, modules, addrs[0]); err != nil {
		return err
	}
	p.URL = "ws://" + addrs[0] + "/"
	return p.node.await(ctx, func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addrs[0])
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

func (p *Pusher) launch(c Config, node, modules, addr string) error {
	dir, err := c.makeDir(WebSocket)
	if err != nil {
		return err
	}
	if err := os.CopyFS(dir, pusherFiles); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	p.node, err = c.launch(WebSocket, dir, "", pusherEnv(addr, modules, p.redis.(*redisStore).options), node, filepath.Join(dir, "ws", "server.js"))
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	return nil
}

func pusherEnv(addr, modules string, o *redis.Options) []string {
	_, port, _ := net.SplitHostPort(addr) // it is one of Ports
	return []string{
		"NODE_ENV=production", "NODE_PATH=" + modules, "PORT=" + port,
		fmt.Sprintf("REDIS_URL=redis://:%s@%s", o.Password, o.Addr),
	}
}

// PIDs are the server's and that of Redis.
func (p *Pusher) PIDs() (node, redis int) {
	return p.node.pid, p.redis.(*redisStore).servers[0].pid
}

// Close ends both and removes what they kept.
func (p *Pusher) Close() error {
	var errs []error
	if p.node != nil {
		errs = append(errs, p.node.stop())
	}
	if p.redis != nil {
		errs = append(errs, p.redis.Close())
	}
	return errors.Join(errs...)
}
