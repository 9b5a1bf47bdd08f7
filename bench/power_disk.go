package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"github.com/stockmesh/stockmesh/bench/powerfs"
)

// The switches of a disk: paths of its process, to be posted to.
const (
	diskFreeze   = "/freeze"    // nothing is carried out any more
	diskArm      = "/arm"       // the same from the next sync on, or soon
	diskLose     = "/lose"      // the power is lost; answers with a powerfs.Loss
	diskOn       = "/on"        // it comes back
	diskFailSync = "/fail-sync" // each sync fails from now on
)

const armedFor = 20 * time.Millisecond // that long a sync is waited for

const leaveWithin = 10 * time.Second // a node that ends with its parent is given to leave its files

// How long a lying disk keeps to itself what it was told to sync: until it has a moment,
// and never less than leaves a power cut something to take.
const (
	lieFor     = time.Second
	lieAtLeast = 250 * time.Millisecond
)

// runDisk is the disk of a node: after the directory of all nodes of the round come
// where it is mounted and its flags. It ends with the parent, or when it is told to;
// either way nothing stays mounted.
func runDisk(args []string) error {
	ctx, orphaned, cancel := childContext()
	defer cancel()
	var config powerfs.Config
	f := pflag.NewFlagSet(childDisk, pflag.ContinueOnError)
	f.Uint64Var(&config.Seed, "seed", 0, "")
	f.BoolVar(&config.Lies, "lies", false, "")
	posix := f.Bool("posix", false, "")
	if err := f.Parse(args[2:]); err != nil {
		return err
	}
	if *posix {
		config.Model = powerfs.POSIX
	}
	err := serveDisk(ctx, args[1], config)
	select {
	case <-orphaned:
		return errors.Join(err, removeLater(args[0]))
	default:
		return err
	}
}

// removeLater removes the directory of nodes that are about to notice that nobody
// needs them any more.
func removeLater(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	for {
		err := os.RemoveAll(dir)
		if err == nil || ctx.Err() != nil {
			return err
		}
		_ = pause(ctx, settleStockPoll) // ctx is looked at above
	}
}

func serveDisk(ctx context.Context, dir string, config powerfs.Config) (err error) {
	disk := powerfs.New(config)
	mount, err := powerfs.NewMount(dir, disk)
	if err != nil {
		return err
	}
	defer func() {
		disk.PowerOn() // nobody waits for it any more
		leave, cancel := context.WithTimeout(context.Background(), leaveWithin)
		defer cancel()
		err = errors.Join(err, mount.Close(leave))
	}()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	liar := &liar{disk: disk, kept: time.Now()}
	handler := diskSwitches(disk)
	if config.Lies {
		handler = liar.goOnLying(handler)
	}
	switches := &http.Server{Handler: handler, ReadHeaderTimeout: dialTimeout}
	ended := make(chan error, 1)
	go func() { ended <- switches.Serve(l) }()
	defer func() {
		err = errors.Join(err, switches.Close())
		<-ended
	}()
	if err := announce(addresses{Admin: l.Addr().String()}); err != nil {
		return err
	}
	for {
		select {
		case <-time.After(lieFor):
			if config.Lies {
				liar.keep()
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// liar is a disk that lies, and now and then does what it was told.
type liar struct {
	disk *powerfs.Disk
	mu   sync.Mutex
	kept time.Time // when everything was made durable last
}

func (l *liar) keep() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.disk.Checkpoint()
	l.kept = time.Now()
}

// goOnLying has the power go only when the disk has lied for a while, and nothing be kept
// in that moment: a cut that takes nothing would show nothing.
func (l *liar) goOnLying(switches http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == diskFreeze || req.URL.Path == diskArm {
			l.mu.Lock()
			defer l.mu.Unlock()
			_ = pause(req.Context(), time.Until(l.kept.Add(lieAtLeast))) // who has asked may be gone
		}
		switches.ServeHTTP(w, req)
	})
}

func diskSwitches(disk *powerfs.Disk) http.Handler {
	mux := http.NewServeMux()
	does := func(path string, do func()) {
		mux.HandleFunc("POST "+path, func(http.ResponseWriter, *http.Request) { do() })
	}
	does(diskFreeze, disk.Freeze)
	does(diskArm, func() { freezeAtSync(disk) })
	does(diskOn, disk.PowerOn)
	does(diskFailSync, func() { disk.FailSync(syscall.EIO) })
	mux.HandleFunc("POST "+diskLose, func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(disk.LosePower()) // who has asked misses the end
	})
	return mux
}

// freezeAtSync freezes the disk in the moment of a sync, or where none comes.
func freezeAtSync(disk *powerfs.Disk) {
	disk.Arm()
	for late := time.Now().Add(armedFor); !disk.Frozen() && time.Now().Before(late); {
		time.Sleep(time.Millisecond)
	}
	disk.Freeze()
}

// disk is a node's disk, in a process of its own, and the switch of its power.
type disk struct {
	*process
	dir string // where it is mounted
}

// openDisk mounts a disk over the directory.
func openDisk(ctx context.Context, all, dir string, flags ...string) (*disk, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	p, err := startProcess(ctx, os.Stderr, append([]string{childDisk, all, dir}, flags...)...)
	if err != nil {
		return nil, err
	}
	return &disk{process: p, dir: dir}, nil
}

// turn turns one of the disk's switches and reads the answer, where one is wanted.
func (d *disk) turn(ctx context.Context, which string, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+d.Admin+which, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("disk: %s: %s: %.300s %w", which, resp.Status, said, err)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(said, answer)
}

// close ends the disk and sees to it that nothing stays mounted.
func (d *disk) close() error { return errors.Join(d.stop(), powerfs.Detach(d.dir)) }
