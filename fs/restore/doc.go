// Package restore writes a snapshot, or a part of it, into a folder.
//
//	plan      walk the tree, compare with the folder: what is to be made, and
//	          which ranges of which files come from which blob
//	delete    what is in the way or, if asked for, not in the snapshot
//	folders   in walk order, closed to others
//	others    symbolic links, devices, FIFOs, sockets, files without data
//	contents  blob by blob: fetch, decompress, check, write, rename
//	links     further names of what is there now
//	finish    the folders' metadata, the deepest first
//	verify    read back, if asked for
//
// The plan is made by plan.go, entry.go, delete.go and lookup.go, of what pick.go
// lets through; make.go has the stages without content, contents.go and frames.go
// those with. What is done to the folder, and how, is package disk's; what of the
// plan does not fit into memory is package spool's.
//
// The plan is made as a whole before anything is changed, because nothing less
// lets each blob be fetched once: chunks are shared by files that lie far apart,
// and what an incremental backup stored lies in other blobs than what is next to
// it in the tree. It is lists of fixed records, of some 80 bytes a chunk and 17
// for other entries, the chunks sorted by blob and place; above a few megabytes
// they go into files without a name and are sorted and merged there. So memory
// is bounded in bytes however many files there are, but for a few bits for each
// entry of the snapshot, 24 bytes for each of its blobs, and a folder's page at
// a time.
//
// What it promises: no byte is written that was not checked against its chunk's
// SHA-256. A file is written under a temporary name and renamed when it is
// complete with its metadata, so that a name of the snapshot never stands for
// half a file; the next run removes what a killed one left. What cannot be
// restored is told by path, and is not there afterwards, rather than empty or
// short. Below the folder, no symbolic link is followed: each component is opened
// from its parent's handle and must be a directory.
//
// What it does not: it cannot tell a file from another with the same size and
// modification time unless it is told to overwrite always, or to verify; it sets
// no birth times and inode flags; and it does not wait for the disk.
package restore
