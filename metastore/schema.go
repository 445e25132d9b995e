package metastore

import (
	_ "embed" // schema.sql
	"encoding/binary"
)

//go:embed schema.sql
var schema string

// Schema returns the statements that make an empty index, without a
// transaction around them. It stands here, where readers look for it, beside
// the words that its columns hold.
func Schema() string { return schema }

// Prefix is what the schema's table prefixes has of a chunk's hash.
func Prefix(hash [32]byte) int64 {
	return int64(binary.BigEndian.Uint64(hash[:8]) >> 16)
}
