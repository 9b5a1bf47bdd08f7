package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stockmesh/stockmesh/protocol"
)

func (a *app) certsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "certs", Short: "Make certificates and keys for nodes and tills", Args: cobra.NoArgs,
		Long: `Make what nodes prove themselves with: a certificate authority, a certificate for each
node, the key that gossip is encrypted with, and the one that passwords between regions
are made from; and certificates for tills. Nothing here talks to a node.

Meant for development and for meshes without a certificate authority of their own. The
files belong to whoever runs the command; the key files only they may read, so run it
as the user that runs the node, or hand the files over.`,
		Example: `  stockctl certs ca --dir certs
  stockctl certs node eu-1 --dir certs --region eu --host eu-1.example.com,10.0.0.7
  stockctl certs client --dir tills --location store-12 --name POS-7
  stockctl certs gossip-key --out certs/gossip.key
  stockctl certs link-secret --out certs/link.key`,
		// Without it a mistyped subcommand would print the help and succeed.
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.certsCACommand(), a.certsNodeCommand(), a.certsClientCommand(), a.keyringCommand(gossipKeyring), a.keyringCommand(linkKeyring))
	return cmd
}

// certFlags are the flags of both commands that make a certificate.
type certFlags struct {
	dir   string
	days  int
	force bool
}

func (f *certFlags) add(cmd *cobra.Command, days int) *cobra.Command {
	cmd.Flags().StringVar(&f.dir, "dir", "", "`DIR` of the CA's files and the nodes'; made if missing")
	cmd.Flags().IntVar(&f.days, "days", days, "how long the certificate is valid")
	cmd.Flags().BoolVar(&f.force, "force", false, "replace files that are there")
	cmd.MarkFlagRequired("dir")
	return cmd
}

func (f *certFlags) check() error {
	if f.dir == "" {
		return errors.New("--dir is empty")
	}
	if f.days < 1 || f.days > certDaysMax {
		return fmt.Errorf("--days must be 1 to %d, not %d", certDaysMax, f.days)
	}
	return nil
}

func (f *certFlags) until() time.Time { return time.Now().AddDate(0, 0, f.days) }

func (a *app) certsCACommand() *cobra.Command {
	var f certFlags
	var name string
	cmd := &cobra.Command{
		Use: "ca", Short: "Make a certificate authority", Args: cobra.NoArgs,
		Long: `Write DIR/ca.pem, which every node and client is given, and DIR/ca-key.pem, which signs
nodes' certificates: whoever has it can join the mesh as any node, so no node needs it
and none should hold it.

Nothing is overwritten without --force. A new CA doesn't know the certificates of the
one before it: make the nodes' again too.`,
		Example: "  stockctl certs ca --dir certs\n  stockctl certs ca --dir certs --days 365 --name 'shop mesh CA'",
		RunE: func(*cobra.Command, []string) error {
			if err := f.check(); err != nil {
				return err
			}
			if name == "" || len(name) > commonNameBytesMax {
				return fmt.Errorf("--name must have 1 to %d bytes", commonNameBytesMax)
			}
			return a.makeCA(&f, name)
		},
	}
	cmd.Flags().StringVar(&name, "name", "stockmesh mesh CA", "the CA's name, as browsers and logs show it")
	return f.add(cmd, 3650)
}

func (a *app) makeCA(f *certFlags, name string) error {
	p, err := newCA(name, f.until())
	if err != nil {
		return err
	}
	made, err := p.write(f.dir, "ca", f.force)
	if err != nil {
		return err
	}
	made.CA = made.Cert
	if a.json {
		return printJSON(a.out, made)
	}
	fmt.Fprintf(a.out, `CA %q, valid until %s:
  %s  for every node and client
  %s  signs; keep it off the nodes

Next, a certificate for each node:
  stockctl certs node eu-1 --dir %s --region eu --host eu-1.example.com
`, name, timeText(made.Expires), made.Cert, made.Key, shellWord(f.dir))
	return nil
}

func (a *app) certsNodeCommand() *cobra.Command {
	var f certFlags
	var region string
	var hosts []string
	cmd := &cobra.Command{
		Use: "node NAME", Short: "Make a node's certificate, signed by the CA in DIR", Args: cobra.ExactArgs(1),
		Long: `Write DIR/NAME.pem and DIR/NAME-key.pem, signed by the CA that "stockctl certs ca" put in
DIR. NAME and --region are the --name and --region that the node is started with; the
certificate holds them as stockmesh://REGION/NAME. Nodes both call and are called with it
(--mesh-cert), within the region and from region to region; it serves for the public port
too (--tls-cert). Nodes of two regions that share a NAME need a folder each, with the same
CA in it.

--host lists every name and address that other nodes and clients reach the node by: a
certificate is refused under any other.

To renew, run it again with --force. Each file is replaced whole, never seen half
written; a node that reads them between the two keeps what it has and looks again.
The certificate never outlives its CA.`,
		Example: `  stockctl certs node eu-1 --dir certs --region eu
  stockctl certs node eu-1 --dir certs --region eu --host eu-1.example.com,10.0.0.7,localhost
  stockctl certs node eu-1 --dir certs --region eu --host eu-1.example.com --force`,
		RunE: func(_ *cobra.Command, args []string) error {
			if err := errors.Join(f.check(), checkNodeName(args[0]), checkRegion("--region", region)); err != nil {
				return err
			}
			return a.makeNode(&f, identity{node: args[0], region: region, hosts: hosts})
		},
	}
	cmd.Flags().StringVar(&region, "region", "", "the node's region")
	cmd.Flags().StringSliceVar(&hosts, "host", []string{"localhost", "127.0.0.1", "::1"}, "DNS names and IP addresses of the node, repeated or joined by commas")
	cmd.MarkFlagRequired("region")
	return f.add(cmd, 365)
}

func (a *app) makeNode(f *certFlags, id identity) error {
	ca, err := readCA(f.dir)
	if err != nil {
		return err
	}
	p, err := newNode(ca, id, f.until())
	if err != nil {
		return err
	}
	made, err := p.write(f.dir, id.node, f.force)
	if err != nil {
		return err
	}
	made.CA = filepath.Join(f.dir, "ca.pem")
	if a.json {
		return printJSON(a.out, made)
	}
	nodeSteps(a.out, id, made)
	return nil
}

func nodeSteps(w io.Writer, id identity, m madeFiles) {
	cert, key, ca := shellWord(m.Cert), shellWord(m.Key), shellWord(m.CA)
	fmt.Fprintf(w, `Node %s of region %s at %s, valid until %s:
  %s
  %s

Start the node with these flags, for TLS between nodes and regions:
  --name %s --region %s --mesh-cert %s --mesh-key %s --mesh-ca %s
and these too, for TLS of its public port:
  --tls-cert %s --tls-key %s
Clients then need the CA: stockctl --tls-ca %s, or STOCKMESH_TLS_CA.
`, id.node, id.region, strings.Join(id.hosts, ", "), timeText(m.Expires), m.Cert, m.Key,
		id.node, id.region, cert, key, ca, cert, key, ca)
}

// checkNodeName also refuses names whose files would be another's: node "ca" would
// replace the CA, and node "a-key" the key of node "a".
func checkNodeName(name string) error {
	if err := checkRegion("NAME", name); err != nil {
		return err
	}
	if name == "ca" || strings.HasSuffix(name, "-key") {
		return fmt.Errorf("a node named %q would share its files with the CA or another node's key", name)
	}
	return nil
}

func checkRegion(field, s string) error {
	if e := protocol.CheckRegion(field, s); e != nil {
		return fmt.Errorf("%s, not %q", e.Message, s)
	}
	return nil
}

var unquoted = regexp.MustCompile(`^[A-Za-z0-9_./:@%+,-]+$`)

// shellWord quotes a path where a shell would take it apart.
func shellWord(s string) string {
	if unquoted.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
