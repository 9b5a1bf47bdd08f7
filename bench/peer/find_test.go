package peer

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/redis/go-redis/v9"
)

func TestEveryKindSaysWhatItPromises(t *testing.T) {
	seen := make(map[string]bool)
	for _, k := range Kinds() {
		if k.Durability == "" || seen[k.Name] || k.find == nil || k.Pushes != (k.start == nil) || !k.Pushes && (len(k.counts) == 0 || k.batch == 0) {
			t.Errorf("%+v", k)
		}
		seen[k.Name] = true
	}
}

// TestMissingPeersSayHowToGetThem looks for all in a place where there is nothing.
func TestMissingPeersSayHowToGetThem(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, c := range []struct {
		find func() error
		want string
	}{
		{func() error { _, err := findServerPrograms([]string{"/nonexistent/*"}); return err }, "no PostgreSQL server here: apt install postgresql"},
		{func() error { return findRedis(Config{}) }, "no Redis server here: apt install redis-server"},
		{func() error { return findPusher(Config{}) }, "no Node.js here: apt install nodejs"},
		{func() error { _, err := findModules([]string{"/nonexistent"}); return err }, "no modules ws and redis here: npm install"},
	} {
		err := c.find()
		if missing := (Missing{}); !errors.As(err, &missing) || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	for _, k := range Kinds() {
		if err := k.Find(Config{}); err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: more than a line: %v", k.Name, err)
		}
	}
}

func TestNewestServerIsFound(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	dir := t.TempDir()
	for _, file := range []string{"9/bin/initdb", "9/bin/postgres", "15/bin/initdb", "15/bin/postgres", "16/bin/initdb"} {
		touch(t, filepath.Join(dir, file))
	}
	bin, err := findServerPrograms([]string{"/nonexistent/*/bin", filepath.Join(dir, "*", "bin")})
	if want := filepath.Join(dir, "15", "bin"); err != nil || bin != want {
		t.Errorf("%s, %v; want %s: 16 has no server", bin, err, want)
	}
}

func TestModulesAreFound(t *testing.T) {
	dir := t.TempDir()
	touch(t, filepath.Join(dir, "a", "ws", "package.json"))
	for _, m := range pusherModules {
		touch(t, filepath.Join(dir, "b", "node_modules", m, "package.json"))
	}
	told := []string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}
	found, err := findModules(moduleDirs(told, "", "/usr/bin/node"))
	if want := filepath.Join(dir, "b", "node_modules"); err != nil || found != want {
		t.Errorf("%s, %v; want %s", found, err, want)
	}
	dirs := moduleDirs(nil, "/x"+string(os.PathListSeparator)+"/y", "/opt/node/bin/node")
	for _, want := range []string{"/x", "/y", "/opt/node/lib/node_modules"} {
		if !slices.Contains(dirs, want) {
			t.Errorf("%s is not among %v", want, dirs)
		}
	}
}

func touch(t *testing.T, file string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
}

// TestConfigurationsAreDurable: whatever else they say, no answer may come before a
// disk has it.
func TestConfigurationsAreDurable(t *testing.T) {
	for name, c := range map[string]struct{ conf, want string }{
		"postgres":    {postgresConfig("5432"), "fsync = on\n|synchronous_commit = on\n|full_page_writes = on\n|port = 5432\n|listen_addresses = '127.0.0.1'\n"},
		"redis":       {redisConfig("6379", "/d", "secret", ""), "appendonly yes\n|appendfsync always\n|port 6379\n|bind 127.0.0.1\n|requirepass secret\n"},
		"its replica": {redisConfig("6380", "/d", "secret", "127.0.0.1:6379"), "appendfsync always\n|replicaof 127.0.0.1 6379\n|masterauth secret\n"},
		"nats":        {natsConfig("n", "127.0.0.1:4222", "/d", "", nil), "sync_interval: always\n"},
	} {
		for want := range strings.SplitSeq(c.want, "|") {
			if !strings.Contains("\n"+c.conf, "\n"+want) && !strings.Contains(c.conf, want) {
				t.Errorf("%s does not say %q:\n%s", name, want, c.conf)
			}
		}
	}
	if strings.Contains(redisConfig("1", "/d", "x", ""), "replicaof") {
		t.Error("a server that is alone copies something")
	}
}

// TestServerReadsItsConfiguration has the library say what it makes of ours.
func TestServerReadsItsConfiguration(t *testing.T) {
	file := filepath.Join(t.TempDir(), "nats.conf")
	routes := []string{"127.0.0.1:6222", "127.0.0.1:6223", "127.0.0.1:6224"}
	if err := os.WriteFile(file, []byte(natsConfig("peer-1", "127.0.0.1:4222", "/d", routes[0], routes)), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !o.SyncAlways || !o.JetStream || o.StoreDir != "/d" || o.Port != 4222 || o.Host != "127.0.0.1" || o.Cluster.Port != 6222 || len(o.Routes) != 3 {
		t.Errorf("%+v", o)
	}
}

func TestUserOfPostgres(t *testing.T) {
	if as, err := postgresUser(1000); err != nil || as != "" {
		t.Errorf("%q, %v: anybody but root is good as he is", as, err)
	}
	as, err := postgresUser(0)
	if err != nil {
		t.Skip(err)
	}
	if uid, gid, err := identity(as); err != nil || uid == 0 || gid == 0 {
		t.Errorf("root becomes %q, %v", as, err)
	}
}

func TestPusherKnowsItsRedis(t *testing.T) {
	env := pusherEnv("127.0.0.1:8080", "/m", &redis.Options{Addr: "127.0.0.1:6379", Password: "secret"})
	for _, want := range []string{"PORT=8080", "NODE_PATH=/m", "REDIS_URL=redis://:secret@127.0.0.1:6379"} {
		if !slices.Contains(env, want) {
			t.Errorf("%s is not in %v", want, env)
		}
	}
}
