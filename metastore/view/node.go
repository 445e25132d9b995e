package view

import (
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/view/internal/layout"
)

// Node is one directory entry of a View.
type Node struct {
	Ino            uint64 // hard links share it
	Parent         uint64 // Ino of the directory that it was found in; 0 for the root
	Name           string // any bytes but "/" and NUL; "" for the root
	Cookie         uint64 // where ReadDir goes on behind this entry
	metastore.File        // without Xattrs

	HasXattrs bool
	Blocks    int64 // units of 512 bytes that its data takes, holes left out

	row int64 // of files, which xattrs belong to
}

// Extent is a piece of a file's content.
type Extent struct {
	Offset, Length int64 // bytes, in the file
	Hole           bool  // zeros that are not stored; nothing of what follows is set then

	Chunk     [32]byte // SHA-256 of the piece
	ChunkSize int64    // bytes, the same as Length

	Lost                     bool // no blob holds the chunk; nothing of what follows is set then
	Blob                     BlobInfo
	FrameOffset, FrameLength int64 // bytes, in the blob's decrypted stream
	FrameStart               int64 // where the chunk begins in the decompressed frame
}

// BlobInfo is what reading a blob takes.
type BlobInfo struct {
	Hash   [32]byte // SHA-256 of the object
	Seq    int64    // the run it was uploaded under
	Size   int64    // bytes of the object
	Header int64    // bytes of its age header
}

// nodeOf decodes entry i of a page into n, keeping n's strings where they are
// the same.
func nodeOf(p *layout.Page, i int, n *Node) error {
	e, err := p.Entry(i)
	if err != nil {
		return err
	}
	n.Parent, n.Cookie = p.Dir, p.First+uint64(i)
	n.Ino = n.Cookie
	if e.Flags&layout.FlagLink != 0 {
		n.Ino = e.Ino
	}
	n.Name, n.row = string(e.Name), e.Row
	n.HasXattrs, n.Blocks = e.Flags&layout.FlagXattrs != 0, e.Blocks
	return layout.DecodeFile(e.File, &n.File)
}

// lookupIn decodes a page's entry called name into n.
func lookupIn(p *layout.Page, name string, n *Node) (found bool, err error) {
	i, found, err := p.Lookup(name)
	if err != nil || !found {
		return false, err
	}
	return true, nodeOf(p, i, n)
}
