package peer

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/nats-io/nats-server/v2/server"
)

// natsConfig is the file that a NATS server is started with. routes are the addresses of
// all servers of a cluster, nil where it is alone.
func natsConfig(name, addr, dir, route string, routes []string) string {
	conf := lines(
		"server_name: "+name,
		fmt.Sprintf("listen: %q", addr),
		"jetstream {",
		fmt.Sprintf("  store_dir: %q", dir),
		"  sync_interval: always",
		"}",
	)
	if len(routes) == 0 {
		return conf
	}
	var urls []string
	for _, r := range routes {
		urls = append(urls, "nats://"+r)
	}
	list, _ := json.Marshal(urls) // strings
	return conf + lines(
		"cluster {",
		"  name: peer",
		fmt.Sprintf("  listen: %q", route),
		"  routes: "+string(list),
		"}",
	)
}

// ServeNATS is nats-server with the configuration file that is its argument, until it is
// told to stop. It is the library that stockmesh embeds, and nothing of ours in it.
func ServeNATS(args []string) error {
	if len(args) != 1 {
		return errors.New("want CONFIG")
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	o, err := server.ProcessConfigFile(args[0])
	if err != nil {
		return err
	}
	o.NoSigs = true
	s, err := server.NewServer(o)
	if err != nil {
		return err
	}
	s.ConfigureLogger()
	s.Start()
	<-stop
	s.Shutdown()
	s.WaitForShutdown()
	return nil
}
