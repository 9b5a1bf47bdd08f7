package relay

// Admission says what an owner does with a batch.
type Admission uint8

// The admissions; the third is Gap: batches before it are missing, say so.
const (
	Take      Admission = 0 // decide and answer it
	Duplicate Admission = 2 // been here, or of a session that its sender has given up: say nothing
)

// Gap is an Admission and the Verdict that it leads to: batches before this one
// are missing.
const Gap = 1

// Receiver is the owner's side for one shard: it takes each node's batches in
// order. A batch that it was told to take is to be decided in that order and
// answered, whatever the answers are; else Reset.
type Receiver struct {
	nodes map[string]place
}

// place is where a node's session stands.
type place struct{ session, next uint64 }

// NewReceiver returns a receiver that knows nobody.
func NewReceiver() *Receiver { return &Receiver{nodes: make(map[string]place)} }

// Accept decides about a batch by its header.
func (r *Receiver) Accept(from string, session, number uint64) Admission {
	at, known := r.nodes[from]
	if !known || session > at.session {
		at = place{session: session, next: 1}
	}
	switch {
	case session < at.session || number < at.next:
		return Duplicate
	case number > at.next:
		return Gap
	}
	at.next++
	r.nodes[from] = at
	return Take
}

// Reset forgets everybody, as befits a node that becomes the owner, again or for
// the first time: what others decided meanwhile it does not know.
func (r *Receiver) Reset() { clear(r.nodes) }
