package metastore

import _ "embed" // schema.sql

//go:embed schema.sql
var schema string

// Schema returns the statements that make an empty index, without a
// transaction around them. It stands here, where readers look for it, beside
// the words that its columns hold.
func Schema() string { return schema }
