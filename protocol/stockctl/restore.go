package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

// restoreFile is where a node with a new data directory looks for a backup.
const restoreFile = "restore.stockmesh"

func (a *app) restoreCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Put a backup into a new data directory, for a node to start from", Args: cobra.ExactArgs(1),
		Long: `Check a backup and put it into DIR, which must be empty or not exist: the node that is
then started with --data DIR begins with the backup's state. No node is talked to, and
FILE is left as it is; "-" reads from the input. Run it as the user that runs the node:
only its owner may read what it writes.

A restored region is read-only until "stockctl activate": it holds the same units as
the region that the backup is of, and if both sold, they would be sold twice.

From one node to a region of three:

  1. Keep clients away from the node, at the load balancer for instance. It sells while
     it is backed up, and what it sells after that is missing from the backup: the new
     region would sell it again.
  2. stockctl backup --out eu.stockmesh                  on the node's machine
  3. Stop the node, and see to it that nothing starts it again. Keep its data directory
     until the new region is in use.
  4. stockctl restore eu.stockmesh --data DIR            on ONE of the three machines
  5. Start all three nodes with the old node's --region and --shards, and with --expect 3,
     --join, certificates ("stockctl certs") and a --name of their own: the one with DIR,
     the other two with empty data directories. They get the state from the first.
  6. stockctl node list                                  until all are online and current
  7. stockctl activate                                   once, on any of the three
  8. Let clients in.

After the loss of a region steps 4 to 8 are the same; what was sold after the backup is
lost, so count the stock before clients are let in.`,
		Example: `  stockctl restore eu.stockmesh --data /var/lib/stockmesh
  zstd -dc eu.stockmesh.zst | stockctl restore - --data /var/lib/stockmesh`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.restore(cmd.Context(), cmd.InOrStdin(), args[0], dir)
		},
	}
	cmd.Flags().StringVar(&dir, "data", "", "the node's data `DIR`, empty or still to be made")
	cmd.MarkFlagRequired("data")
	return cmd
}

func (a *app) restore(ctx context.Context, in io.Reader, file, dir string) error {
	if err := checkEmpty(dir); err != nil {
		return err
	}
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := a.checkFirst(ctx, f); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		in = f
	} else if isTerminal(in) {
		return errors.New("there is no backup on the input, which is a terminal")
	}
	sum, err := a.place(ctx, in, dir)
	if err != nil {
		return fmt.Errorf("nothing was restored: %w", err)
	}
	if a.json {
		return printJSON(a.out, sum)
	}
	restoredSteps(a.out, dir, &sum)
	return nil
}

// checkEmpty lets a new file system pass.
func checkEmpty(dir string) error {
	if dir == "" {
		return errors.New("--data is empty")
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if e.Name() != "lost+found" {
			return fmt.Errorf("%s is not empty: it holds %s; a backup is restored into a new data directory", dir, e.Name())
		}
	}
	return nil
}

// checkFirst reads the whole file before anything is made. A pipe can't be read twice;
// like the input it is checked while it is copied.
func (a *app) checkFirst(ctx context.Context, f *os.File) error {
	info, err := f.Stat()
	if err != nil || info.Mode().Type()&fs.ModeNamedPipe != 0 {
		return err
	}
	_, err = a.checkBackup(ctx, f, info.Size())
	return err
}

// place copies the backup, checking it (again): the file may have changed, the input
// was not seen before. After an error the directory is as it was.
func (a *app) place(ctx context.Context, in io.Reader, dir string) (sum backupSummary, err error) {
	made, err := makeDir(dir)
	defer func() {
		if err != nil && made {
			os.Remove(dir)
		}
	}()
	if err != nil {
		return sum, err
	}
	p, err := createPartial(filepath.Join(dir, restoreFile), false)
	if err != nil {
		return sum, err
	}
	defer p.drop()
	bar := newByteBar(a.errOut, "restore", -1)
	defer bar.end()
	from := interruptible(ctx, in)
	defer from.Close()
	if sum, err = copyBackup(from, p, bar); err != nil {
		return sum, err
	}
	sum.File = p.file
	return sum, p.commit()
}

// makeDir makes the directory as a node would, and reports whether it had to.
func makeDir(dir string) (made bool, err error) {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return false, err
	}
	return true, syncDir(filepath.Dir(filepath.Clean(dir)))
}

func restoredSteps(w io.Writer, dir string, sum *backupSummary) {
	fmt.Fprintf(w, `%s: %s

Next:
  1. Start this node with
       --data %s --region %s --shards %d
     In a region of three, restore into this node's directory ONLY: give all three
     --expect 3, --join and certificates, and the other two empty data directories.
  2. The region starts read-only: look at its stock with stockctl get, and at three nodes
     with stockctl node list, until all are current.
  3. When what the backup is of is stopped for good: stockctl activate
`, sum.File, sum.text(), shellWord(dir), sum.Region, sum.Shards)
}
