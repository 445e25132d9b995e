package metastore

import (
	"encoding/binary"
	"errors"
)

// Node is one directory entry of a View.
type Node struct {
	Ino    uint64 // hard links share it
	Parent uint64 // Ino of the directory that it was found in; 0 for the root
	Name   string // any bytes but "/" and NUL; "" for the root
	Cookie uint64 // where ReadDir goes on behind this entry
	File          // without Xattrs

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

// errPage: a view's page cannot be what BuildView wrote.
var errPage = errors.New("a page of the view is damaged")

// The codes of roles and states in a view, by position.
var (
	roles  = [...]Role{RoleRoot, RoleInside, RoleParent}
	states = [...]State{StateComplete, StateChanged, StateUnreadable, StateOtherFS, StateCacheDir, StateExcluded}
)

// appendFile packs a file's metadata. The role comes first, because hard links
// of one file may differ in it and in nothing else.
func appendFile(dst []byte, f *File) []byte {
	code := func(n int) { dst = append(dst, byte(n)) }
	for i, r := range roles {
		if r == f.Role {
			code(i)
		}
	}
	for i, s := range states {
		if s == f.State {
			code(i)
		}
	}
	dst = append(dst, byte(f.Type))
	unsigned := func(numbers ...uint64) {
		for _, n := range numbers {
			dst = binary.AppendUvarint(dst, n)
		}
	}
	unsigned(uint64(f.Errno), uint64(f.Mode), uint64(f.UID), uint64(f.GID), uint64(f.Size))
	for _, t := range [...]Time{f.MTime, f.CTime, f.BTime} {
		dst = binary.AppendVarint(dst, t.Sec)
		unsigned(uint64(t.Nsec))
	}
	unsigned(f.Inode, uint64(f.Volume), uint64(f.Nlink), uint64(f.RdevMajor), uint64(f.RdevMinor),
		uint64(f.Flags), uint64(f.Content))
	for _, s := range [...]string{f.User, f.Group, f.Target} {
		unsigned(uint64(len(s)))
		dst = append(dst, s...)
	}
	return dst
}

// decodeFile is the inverse of appendFile. Strings that equal those that f has
// already are kept: neighbours in a directory share their owner.
func decodeFile(data []byte, f *File) error {
	if len(data) < 3 || int(data[0]) >= len(roles) || int(data[1]) >= len(states) {
		return errPage
	}
	f.Role, f.State, f.Type = roles[data[0]], states[data[1]], Type(data[2])
	d := decoder{data[3:], false}
	f.Errno = int(d.uvarint())
	f.Mode, f.UID, f.GID = uint32(d.uvarint()), uint32(d.uvarint()), uint32(d.uvarint())
	f.Size = int64(d.uvarint())
	for _, t := range [...]*Time{&f.MTime, &f.CTime, &f.BTime} {
		t.Sec, t.Nsec = d.varint(), int32(d.uvarint())
	}
	f.Inode, f.Volume, f.Nlink = d.uvarint(), int64(d.uvarint()), uint32(d.uvarint())
	f.RdevMajor, f.RdevMinor = uint32(d.uvarint()), uint32(d.uvarint())
	f.Flags, f.Content = uint32(d.uvarint()), int64(d.uvarint())
	for _, s := range [...]*string{&f.User, &f.Group, &f.Target} {
		if b := d.bytes(d.uvarint()); string(b) != *s {
			*s = string(b)
		}
	}
	if d.failed || len(d.data) != 0 {
		return errPage
	}
	return nil
}

// decoder takes values off the front of data and remembers whether it ran out.
type decoder struct {
	data   []byte
	failed bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.data)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.data = d.data[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.data)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.data = d.data[n:]
	return v
}

func (d *decoder) bytes(n uint64) []byte {
	if n > uint64(len(d.data)) {
		d.fail()
		return nil
	}
	b := d.data[:n]
	d.data = d.data[n:]
	return b
}

func (d *decoder) fail() { d.data, d.failed = nil, true }
