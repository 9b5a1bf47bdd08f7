// Sbom lists what a Go binary is made of, as CycloneDX 1.6 in JSON:
//
//	sbom [--version VERSION] [--date RFC3339] BINARY > binary.cdx.json
//
// It reads what the linker wrote into the binary, so the list has the modules that are
// in it and no others. The same binary and flags give the same bytes.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/spf13/pflag"
)

func main() {
	if err := run(os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func run(args []string, look func(string) (string, bool), out, errOut io.Writer) error {
	flags := pflag.NewFlagSet("sbom", pflag.ContinueOnError)
	flags.SetOutput(errOut)
	version := flags.String("version", "", "`VERSION` of the program (default: what the binary says)")
	date := flags.String("date", "", "`TIME` of the list, RFC 3339 (default: $SOURCE_DATE_EPOCH, else none)")
	flags.Usage = func() {
		fmt.Fprintf(errOut, "Usage: sbom [flags] BINARY\n\n%s", flags.FlagUsages())
	}
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return nil
		}
		return err
	}
	if flags.NArg() != 1 {
		return errors.New("want one BINARY (--help lists the flags)")
	}
	made, err := timestamp(*date, look)
	if err != nil {
		return err
	}
	b, err := read(flags.Arg(0))
	if err != nil {
		return err
	}
	return write(out, b.list(*version, made))
}

// timestamp returns when the list is said to be made, "" for no word about it. The clock
// is not asked: it would make every list another one.
func timestamp(date string, look func(string) (string, bool)) (string, error) {
	if date != "" {
		at, err := time.Parse(time.RFC3339, date)
		if err != nil {
			return "", fmt.Errorf("--date: %w", err)
		}
		return at.UTC().Format(time.RFC3339), nil
	}
	epoch, _ := look("SOURCE_DATE_EPOCH")
	if epoch == "" {
		return "", nil
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return "", fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	return time.Unix(seconds, 0).UTC().Format(time.RFC3339), nil
}
