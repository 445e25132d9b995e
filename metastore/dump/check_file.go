package dump

import (
	"fmt"
	"math"
	"strings"

	"git.eeqj.de/sneak/vaultik/metastore"
)

// What may stand in the columns role and state.
var (
	knownRoles  = [...]metastore.Role{metastore.RoleRoot, metastore.RoleInside, metastore.RoleParent}
	knownStates = [...]metastore.State{metastore.StateComplete, metastore.StateChanged, metastore.StateUnreadable, metastore.StateOtherFS, metastore.StateCacheDir, metastore.StateExcluded}
)

// FileOf reads a row of files into f and checks it. Strings that f has already
// are kept where they are the same.
func FileOf(row []Value, f *metastore.File) error {
	if err := checkID(row); err != nil {
		return err
	}
	if err := between("path", row[1].Int, 1, math.MaxInt64); err != nil {
		return err
	}
	if err := within(TableFiles, row, math.MaxUint32, 7, 8, 20, 21, 22, 24); err != nil {
		return err
	}
	if err := within(TableFiles, row, maxNanos, 13, 15, 17); err != nil {
		return err
	}
	if err := within(TableFiles, row, math.MaxInt64, 11, 18); err != nil {
		return err
	}
	if err := between("errno", row[4].Int, 0, math.MaxInt32); err != nil {
		return err
	}
	if err := between("mode", row[6].Int, 0, 0o7777); err != nil {
		return err
	}
	if len(row[9].Bytes) > maxOwner || len(row[10].Bytes) > maxOwner {
		return fmt.Errorf("user or group is longer than %d bytes", maxOwner)
	}
	if err := oneOf(&f.Role, row[2].Bytes, knownRoles[:]); err != nil {
		return fmt.Errorf("role: %w", err)
	}
	if err := oneOf(&f.State, row[3].Bytes, knownStates[:]); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	if len(row[5].Bytes) != 1 || !strings.Contains("fdlpscb", string(row[5].Bytes)) {
		return fmt.Errorf("%q is not a type", row[5].Bytes)
	}
	f.Type = metastore.Type(row[5].Bytes[0])
	f.Errno, f.Mode, f.UID, f.GID = int(row[4].Int), uint32(row[6].Int), uint32(row[7].Int), uint32(row[8].Int)
	keep(&f.User, row[9].Bytes)
	keep(&f.Group, row[10].Bytes)
	f.Size = row[11].Int
	f.MTime = metastore.Time{Sec: row[12].Int, Nsec: int32(row[13].Int)}
	f.CTime = metastore.Time{Sec: row[14].Int, Nsec: int32(row[15].Int)}
	f.BTime = metastore.Time{Sec: row[16].Int, Nsec: int32(row[17].Int)}
	f.Volume, f.Inode, f.Nlink = row[18].Int, uint64(row[19].Int), uint32(row[20].Int)
	f.RdevMajor, f.RdevMinor = uint32(row[21].Int), uint32(row[22].Int)
	keep(&f.Target, row[23].Bytes)
	f.Flags, f.Content = uint32(row[24].Int), row[25].Int
	if row[25].Kind == Null {
		f.Content = 0
	}
	switch target, content := row[23].Kind != Null, row[25].Kind != Null; {
	case target != (f.Type == metastore.Symlink):
		return fmt.Errorf("a symbolic link has a target, and nothing else has, this is of type %q", f.Type)
	case len(f.Target) > maxTarget || strings.Contains(f.Target, "\x00"):
		return fmt.Errorf("a target of %d bytes with or without NUL is not one", len(f.Target))
	case content && f.Type != metastore.Regular:
		return fmt.Errorf("only a regular file has content, this is of type %q", f.Type)
	case content && f.Content < 1:
		return fmt.Errorf("content is %d, not a key", f.Content)
	case !content && f.Type == metastore.Regular && f.Size > 0 && (f.State == metastore.StateComplete || f.State == metastore.StateChanged):
		return fmt.Errorf("a file of %d bytes in state %q has no content", f.Size, f.State)
	case f.Role != metastore.RoleRoot && f.Role != metastore.RoleInside && f.Type != metastore.Directory && f.Type != metastore.Symlink && f.State != metastore.StateUnreadable:
		return fmt.Errorf("what leads to a root is a directory or a symbolic link, this is of type %q", f.Type)
	}
	return nil
}

// oneOf sets *v to the value that is spelled b.
func oneOf[S ~string](v *S, b []byte, values []S) error {
	for _, known := range values {
		if string(b) == string(known) {
			*v = known
			return nil
		}
	}
	return fmt.Errorf("%q is not one", b)
}

// keep sets *s to b and allocates only if it differs.
func keep(s *string, b []byte) {
	if *s != string(b) {
		*s = string(b)
	}
}
