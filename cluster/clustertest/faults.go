package clustertest

import (
	"bytes"
	"strings"
)

const (
	raceTitle = "WARNING: DATA RACE"
	raceEnd   = "=================="
	panicMark = "panic: "
	engineFn  = "github.com/nats-io/nats-server/v2/server."
)

// faultFinder finds data races and panics in what a process says.
type faultFinder struct {
	line   []byte   // begun, its end not written yet
	race   []string // the report under way
	faults []string
}

func (f *faultFinder) write(b []byte) {
	for {
		line, rest, whole := bytes.Cut(b, []byte("\n"))
		f.line = append(f.line, line...)
		if !whole {
			return
		}
		f.take(string(f.line))
		f.line, b = f.line[:0], rest
	}
}

func (f *faultFinder) take(line string) {
	switch {
	case strings.Contains(line, raceTitle):
		f.race = []string{line}
	case f.race == nil:
		if strings.Contains(line, panicMark) {
			f.faults = append(f.faults, line)
		}
	case strings.HasPrefix(line, raceEnd):
		f.endRace()
	default:
		f.race = append(f.race, line)
	}
}

func (f *faultFinder) endRace() {
	if f.race != nil && !ofReload(f.race) {
		f.faults = append(f.faults, strings.Join(f.race, "\n"))
	}
	f.race = nil
}

// found is all that was found so far, a report that was cut off included.
func (f *faultFinder) found() []string {
	f.endRace()
	return f.faults
}

// ofReload tells whether a report is the engine's own race with itself, nats-server
// issue 8499: while options are reloaded, which a link made or undone takes, its
// reloadAuthorization writes pointers of accounts (each with what it held before) that
// its connections read. Both places must be in the engine; all other reports count.
func ofReload(report []string) bool {
	reloads, inEngine := false, 0
	for i, line := range report {
		reloads = reloads || strings.HasPrefix(strings.TrimSpace(line), engineFn+"(*Server).reloadAuthorization(")
		place := strings.TrimPrefix(line, "Previous ")
		isPlace := strings.Contains(place, " by ") &&
			(strings.HasPrefix(strings.ToLower(place), "read at ") || strings.HasPrefix(strings.ToLower(place), "write at "))
		if isPlace && i+1 < len(report) && strings.HasPrefix(strings.TrimSpace(report[i+1]), engineFn) {
			inEngine++
		}
	}
	return reloads && inEngine == 2
}
