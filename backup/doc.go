// Package backup is the writer: it reads folders and makes a snapshot of them in
// a store.
//
//	Source ─ scan ─ read ─ pack ─ compress ─ seal ─ upload ─┐
//	              Index (metastore) ──── heal ─ commit ─────┴─ Store (remote)
//
// Run is the whole of it, for one set. Package scan walks and compares what
// package source shows it; each stage behind it has a file: read.go reads and
// cuts; pack.go fills frames and records; upload.go seals and puts blobs; heal.go
// reads again what the store has lost; dump.go and commit.go upload the metadata
// and the manifest; settle.go looks after what an earlier run left.
//
// It promises that a snapshot exists if and only if its manifest does, and that
// the manifest is put last, when all that it names is there; that killed at any
// moment it loses nothing that was confirmed; that no file that cannot be read,
// or changes meanwhile, keeps the others from being saved, and that the snapshot
// says which those were; that it never follows a symbolic link below a set's
// paths; and that memory is bounded by the buffers and pages that its constants
// name, whatever the size of the tree.
//
// What it does not: it never decrypts, and no code path of it can take an age
// identity. It does not lock: one run at a time for an index, and seeing to that
// is the caller's part. A file that is written to all the time is stored as last
// seen and flagged, not frozen; for that, take a snapshot of the file system.
package backup
