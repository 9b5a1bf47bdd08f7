package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/pflag"
	"github.com/stockmesh/stockmesh/bench/verify"
)

// commandVerify stands in the place of a scenario: it measures nothing.
const commandVerify = "verify"

const verifyExamples = `
Examples:
  go run ./bench verify --endpoints ws://10.0.0.7:8080/v1/ws
  go run ./bench verify --endpoints ws://eu-1:8080,ws://us-1:8080 --watch 1m     while customers shop
  go run ./bench verify --endpoints ws://:$TOKEN@eu-1:8080/v1/ws --prefix tee- --json
`

// verifyOptions is what the command line of verify asks for.
type verifyOptions struct {
	verify.Config
	json bool
}

func parseVerifyOptions(args []string, out io.Writer) (*verifyOptions, error) {
	o := &verifyOptions{}
	f := pflag.NewFlagSet(commandVerify, pflag.ContinueOnError)
	f.SortFlags = false
	f.Usage = func() {
		fmt.Fprint(out, "Usage: bench verify --endpoints URL,... [flags]\n\nHolds live nodes against what a mesh promises about stock: reads every item of every node, compares them, "+
			"and reads some items' histories. Traffic may go on meanwhile. Exits with 1 on any fault.\n\nFlags:\n"+f.FlagUsages()+verifyExamples)
	}
	f.StringSliceVar(&o.Endpoints, "endpoints", nil, "the nodes: `URL,...` (ws://host:port/v1/ws; ws://:TOKEN@host:port/v1/ws where clients need a token, which has to allow watch, history and admin)")
	f.StringArrayVar(&o.Prefixes, "prefix", nil, "only SKUs that begin with `TEXT`; may be repeated")
	f.DurationVar(&o.Watch, "watch", 0, "afterwards, go on looking at what changes for so long")
	f.DurationVar(&o.Settle, "settle", verify.SettleDefault, "how long a node may take to show what another one has shown")
	f.IntVar(&o.Sample, "sample", verify.SampleDefault, "read the histories of `N` items, first of those that owe units; negative: of none")
	f.IntVar(&o.Depth, "depth", verify.DepthDefault, "read `N` movements of each in each region, newest first")
	f.DurationVar(&o.KeyWindow, "key-window", verify.KeyWindowDefault, "for how long the nodes remember keys, as their own flag says")
	f.BoolVar(&o.json, "json", false, "print the result as JSON")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return nil, err
		}
		return nil, fmt.Errorf("verify: %w (--help lists the flags)", err)
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("verify: %q is no flag (--help lists them)", f.Arg(0))
	}
	if len(o.Endpoints) == 0 {
		return nil, errors.New("verify: --endpoints says which nodes")
	}
	return o, nil
}

// runVerify is the program where its first argument is verify.
func runVerify(ctx context.Context, args []string, out, log *os.File) error {
	o, err := parseVerifyOptions(args, out)
	if errors.Is(err, pflag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	p := newProgress(log)
	defer p.close()
	o.Progress = (&verifyProgress{progress: p}).show
	result, err := verify.Check(ctx, o.Config)
	p.close()
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if err == nil || result.FaultsTotal > 0 {
		err = errors.Join(err, o.print(&result, out))
	}
	return errors.Join(err, result.Err())
}

func (o *verifyOptions) print(r *verify.Result, out io.Writer) error {
	if !o.json {
		r.Print(out)
		return nil
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	_, err = out.Write(append(b, '\n'))
	return err
}

// verifyProgress shows how far a check is.
type verifyProgress struct {
	*progress
	phase string
	total int
	told  time.Time
}

const verifyTellEvery = 2 * time.Second

func (p *verifyProgress) show(what string, done, total int) {
	if what != p.phase || total != p.total {
		p.phase, p.total, p.told = what, total, time.Now()
		p.counted(what, total)
	}
	p.at(int64(done))
	if total == 0 && done > 0 && time.Since(p.told) > verifyTellEvery { // the bar can't tell
		p.told = time.Now()
		p.note("  %s: %s", what, readable(float64(done)))
	}
}
