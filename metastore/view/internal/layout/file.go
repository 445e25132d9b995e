package layout

import (
	"encoding/binary"

	"git.eeqj.de/sneak/vaultik/metastore"
)

// The codes of roles and states in a view, by position.
var (
	roles  = [...]metastore.Role{metastore.RoleRoot, metastore.RoleInside, metastore.RoleParent}
	states = [...]metastore.State{metastore.StateComplete, metastore.StateChanged, metastore.StateUnreadable, metastore.StateOtherFS, metastore.StateCacheDir, metastore.StateExcluded}
)

// AppendFile packs a file's metadata. The role comes first, because hard links
// of one file may differ in it and in nothing else.
func AppendFile(dst []byte, f *metastore.File) []byte {
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
	for _, t := range [...]metastore.Time{f.MTime, f.CTime, f.BTime} {
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

// DecodeFile is the inverse of AppendFile. Strings that equal those that f has
// already are kept: neighbours in a directory share their owner.
func DecodeFile(data []byte, f *metastore.File) error {
	if len(data) < 3 || int(data[0]) >= len(roles) || int(data[1]) >= len(states) {
		return ErrDamaged
	}
	f.Role, f.State, f.Type = roles[data[0]], states[data[1]], metastore.Type(data[2])
	d := decoder{data[3:], false}
	f.Errno = int(d.uvarint())
	f.Mode, f.UID, f.GID = uint32(d.uvarint()), uint32(d.uvarint()), uint32(d.uvarint())
	f.Size = int64(d.uvarint())
	for _, t := range [...]*metastore.Time{&f.MTime, &f.CTime, &f.BTime} {
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
		return ErrDamaged
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
