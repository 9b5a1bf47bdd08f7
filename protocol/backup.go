package protocol

// BackupMagic is the first line of a backup, BackupHeader as JSON the second. What
// follows only nodes read; the last 32 bytes are the SHA-256 of all that.
const BackupMagic = "stockmesh backup 1\n"

// BackupHeader is what a person, or a script, wants to know of a backup.
type BackupHeader struct {
	Region      string   `json:"region"`
	Shards      int      `json:"shards"`
	Node        string   `json:"node"` // that wrote it
	Incarnation string   `json:"incarnation"`
	TakenAt     Time     `json:"taken_at"`
	Seqs        []uint64 `json:"seqs"` // rounds of each shard's log when it was begun
}
