package verify

import (
	"fmt"
	"sync"
)

// check is one of the promises that nodes are held against.
type check int

const (
	checkForm check = iota
	checkBounds
	checkBody
	checkOrder
	checkEqual
	checkHistory
	checkKeys
	checkReservations
	checkMesh
	checks
)

// described says of each check what it is called and what it is about.
var described = [checks]struct{ name, about string }{
	checkForm:         {"readable", "items named and versioned as agreed, none missing in a snapshot"},
	checkBounds:       {"bounds", "I2: reserved and available not negative, nothing oversold"},
	checkBody:         {"one-body", "I7: one version of an item is the same on every node, whenever it is shown"},
	checkOrder:        {"never-back", "I12: what a connection is shown of an item never goes back"},
	checkEqual:        {"equal", "I5, I11: every node comes to show what any other has shown"},
	checkHistory:      {"history", "I1: movements follow from each other and lead to what is on hand and reserved"},
	checkKeys:         {"keys", "I4: a key changed an item once in a region"},
	checkReservations: {"reservations", "I8: a reservation of an item ended once at most"},
	checkMesh:         {"mesh", "every region serves and is known to all"},
}

// faultsShown is how many faults are kept in words.
const faultsShown = 20

// findings are what was looked at and what was wrong. They may be added from several
// goroutines.
type findings struct {
	mu     sync.Mutex
	looked [checks]int64
	wrong  [checks]int64
	notes  [checks]string
	faults []Fault
}

// Fault is a promise that was not kept.
type Fault struct {
	Check string `json:"check"` // its name
	Text  string `json:"text"`
}

func (f Fault) String() string { return f.Check + ": " + f.Text }

// count adds to what a check has looked at.
func (f *findings) count(c check, n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looked[c] += n
}

func (f *findings) fault(c check, format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wrong[c]++
	if len(f.faults) < faultsShown {
		f.faults = append(f.faults, Fault{described[c].name, fmt.Sprintf(format, args...)})
	}
}

// note says what should be known of a check besides.
func (f *findings) note(c check, format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.notes[c] != "" {
		f.notes[c] += "; "
	}
	f.notes[c] += fmt.Sprintf(format, args...)
}
