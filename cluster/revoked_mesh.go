package cluster

import (
	"context"
	"errors"

	"github.com/stockmesh/stockmesh/cluster/bus"
	"github.com/stockmesh/stockmesh/protocol"
)

// Regions tell each other what they revoked as it happens, which may get lost, and once a
// second what their lists sum up to. Whoever hears of another sum than its own sends what
// it has, until they are equal. A region keeps all of it in its own bucket: so it stays
// when the region it came from is removed, or lost.

// Subjects of what nodes and regions tell each other about revocations.
const (
	subjectRevoked     = "revoked" // between nodes, and between regions: rows
	subjectRevokedSums = "revoked_sums"
)

// Bounds of what is told.
const (
	revokedParts    = 32  // sums of a list
	revokedRowsMax  = 512 // of one message
	revokedToldMax  = 4   // messages in answer to other sums
	revokedBytesMax = 1 << 20
)

// revokedMessage is what regions tell each other.
type revokedMessage struct {
	Rows []storedRevocation `json:"rows,omitzero"`
	Sums []uint64           `json:"sums,omitzero"` // of each part of the list; none: it is empty
}

// sums sums up each part of the list. What is over is left out: whoever forgets it first
// would differ.
func (r *revoked) sums() (sums [revokedParts]uint64) {
	now := r.c.config.Clock()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, row := range r.rows {
		if !row.over(now) {
			sums[row.part()] += row.print
		}
	}
	return sums
}

// part is the part of the list that a row belongs to, in all regions.
func (row *revokedRow) part() int {
	id := Revocation{TokenID: row.TokenID, Subject: row.Subject}
	return int(id.print() % revokedParts)
}

// tellSums tells other regions what this one knows.
func (r *revoked) tellSums() {
	m := r.c.mesh
	if m == nil || !r.keeps() {
		return
	}
	var told revokedMessage
	if sums := r.sums(); sums != [revokedParts]uint64{} {
		told.Sums = sums[:]
	}
	data := protocol.AppendJSON(nil, &told)
	for _, p := range m.all() {
		p.send(subjectRevokedSums, data)
	}
}

// heardRevokedSums answers another region's sums with what it may lack.
func (m *mesh) heardRevokedSums(from, _ string, data []byte) {
	p, r := m.peer(from), m.c.revoked
	var heard revokedMessage
	if p == nil || !r.keeps() {
		return
	}
	if err := protocol.UnmarshalJSON(data, &heard); err != nil || len(heard.Sums) != 0 && len(heard.Sums) != revokedParts {
		m.logger.Error("what another region says of revocations can't be read", "region", from, "error", err)
		return
	}
	var theirs [revokedParts]uint64
	copy(theirs[:], heard.Sums)
	m.tellRevoked([]*peer{p}, r.unlike(&theirs))
}

// unlike returns rows of the parts whose sums are others, as many as are told at once.
// Which ones is left to chance, so that some that are not taken don't stand in the way.
func (r *revoked) unlike(theirs *[revokedParts]uint64) (list []Revocation) {
	ours := r.sums()
	if ours == *theirs {
		return nil
	}
	now := r.c.config.Clock()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, row := range r.rows {
		if part := row.part(); ours[part] != theirs[part] && !row.over(now) {
			list = append(list, row.Revocation)
		}
		if len(list) == revokedToldMax*revokedRowsMax {
			break
		}
	}
	return list
}

// tellRevoked sends revocations to other regions.
func (m *mesh) tellRevoked(peers []*peer, list []Revocation) {
	for len(list) > 0 {
		n := min(len(list), revokedRowsMax)
		var told revokedMessage
		for i := range list[:n] {
			told.Rows = append(told.Rows, list[i].stored())
		}
		data := protocol.AppendJSON(nil, &told)
		for _, p := range peers {
			p.send(subjectRevoked, data)
		}
		list = list[n:]
	}
}

// heardRevoked takes another region's revocations, where this node keeps the bucket.
func (m *mesh) heardRevoked(from, _ string, data []byte) {
	r := m.c.revoked
	if m.peer(from) == nil || !r.keeps() {
		return
	}
	var heard revokedMessage
	if len(data) > revokedBytesMax || protocol.UnmarshalJSON(data, &heard) != nil || len(heard.Rows) > revokedRowsMax {
		m.logger.Error("revocations of another region can't be read", "region", from, "bytes", len(data))
		return
	}
	list := make([]Revocation, 0, len(heard.Rows))
	for i := range heard.Rows {
		rev, err := heard.Rows[i].revocation()
		if err != nil {
			m.logger.Error("a revocation of another region can't be used", "region", from, "error", err)
			continue
		}
		list = append(list, rev)
	}
	select {
	case r.inbox <- list:
	default: // they are told again
	}
}

// adopt makes other regions' revocations this one's too.
func (r *revoked) adopt(ctx context.Context, list []Revocation) {
	rows := r.lacking(list)
	if len(rows) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, revokeWait)
	defer cancel()
	t, err := r.bucket(ctx, true)
	if err == nil {
		_, err = r.write(ctx, t, rows)
	}
	if errors.Is(err, bus.ErrConflict) {
		err = r.read(ctx, t) // this node is behind; they are told again
	}
	if err != nil && ctx.Err() == nil {
		r.logger.Warn("revocations of other regions are not stored yet", "error", err)
	}
}
