// Package layout is how a view is laid out in its file: the tables in view.sql,
// pages of directory entries, packed tables of numbers. One package writes it,
// another reads it.
package layout

import (
	_ "embed" // view.sql
	"errors"

	"git.eeqj.de/sneak/vaultik/metastore"
)

// Schema makes a view's tables, but for that of the snapshot, which is a
// dump's.
//
//go:embed view.sql
var Schema string

// What Schema writes into the file's header.
const (
	Application = 0x766b7677 // "vkvw"
	Version     = 3
)

// CompleteMark is the row of about that is written last.
const CompleteMark = "complete"

// ErrDamaged: a view's page cannot be what its builder wrote.
var ErrDamaged = errors.New("a page of the view is damaged")

// Numbers names the totals as they stand in about.
func Numbers(t *metastore.Totals) map[string]*int64 {
	return map[string]*int64{
		"files": &t.Files, "bytes": &t.Bytes, "volumes": &t.Volumes, "paths": &t.Paths, "xattrs": &t.Xattrs,
		"contents": &t.Contents, "file_chunks": &t.FileChunks, "chunks": &t.Chunks, "blobs": &t.Blobs, "blob_chunks": &t.BlobChunks,
	}
}
