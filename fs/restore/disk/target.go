// Package disk is the folder that a restore writes into, and the only place that
// touches it.
//
//	target.go   the folder, and the names of what is not complete yet
//	folder.go   those below it, open by the inode numbers of their originals
//	look.go     what is there, whether it is what the snapshot has, reading it back
//	write.go    files, links and the rest: temporary, then in place
//	make.go     folders, and their metadata
//	meta.go     owners, attributes, modes and times
//	delete.go   what goes
//
// What it promises: below the folder, no symbolic link is followed: each
// component is opened from its parent's handle and must be a directory. An entry
// gets its name when it is complete with its metadata, and never replaces more
// than one other; what is not complete has a temporary name, which Litter knows.
// What only root may do is left out for others, and counted.
//
// What it does not: it knows nothing of content, and checks none; it decides
// nothing about what is there already; and it does not wait for the disk, unless
// Sync is called.
package disk

import (
	"container/list"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/fs/restore/spool"
)

// ErrBusy: another restore is at work in the same folder.
var ErrBusy = errors.New("another restore is at work in this folder")

// Options say which folder, and for what. All but Root, Keep and Look are needed.
type Options struct {
	Tree *fs.Tree // the snapshot
	Dir  string   // the folder, which may be missing
	Base uint64   // inode number of the directory that it stands for

	Root bool // owners, setuid and setgid bits and the security and trusted attributes are set
	Keep bool // what has a name by the time that an entry is complete is not replaced
	Look bool // nothing is written, so others may be at work
}

// Target is an open target folder. It is safe for concurrent use once it is
// there, until Close.
type Target struct {
	Skipped Skipped

	dir   string
	tree  *fs.Tree
	base  uint64 // the directory that the folder stands for
	root  int    // the folder; -1: it is not there
	me    identity
	made  spool.Set // directories that were made here
	keep  bool
	token string

	mu   sync.Mutex
	open map[uint64]*Folder
	idle list.List // the back was idle longest
}

// Skipped counts what was not done of entries' metadata, because only root may or
// because the file system cannot hold it.
type Skipped struct {
	Owners, SetIDs, Attributes atomic.Int64 // only root may
	Unsupported                atomic.Int64 // attributes that the file system cannot hold
}

// MetadataError: the entry is there, but some of its metadata is not.
type MetadataError struct{ Err error }

func (e *MetadataError) Error() string { return "some of its metadata: " + e.Err.Error() }

func (e *MetadataError) Unwrap() error { return e.Err }

// lacking is a MetadataError, if there is any.
func lacking(err error) error {
	if err == nil {
		return nil
	}
	return &MetadataError{err}
}

// Open opens the folder, if it is there, and keeps other restores out of it.
func Open(o Options) (*Target, error) {
	me, err := whoami(o.Root)
	if err != nil {
		return nil, err
	}
	token := make([]byte, 4)
	_, _ = rand.Read(token) // never fails
	t := &Target{
		dir: o.Dir, tree: o.Tree, base: o.Base, me: me, keep: o.Keep, token: hex.EncodeToString(token),
		made: spool.NewSet(uint64(o.Tree.Totals().Files)), open: make(map[uint64]*Folder),
	}
	if t.root, err = openTarget(o.Dir); err == nil && t.root >= 0 && !o.Look {
		err = lockTarget(t.root, o.Dir)
	}
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// openTarget opens the target folder; -1 if there is none. The person named it:
// if it is a link, that is where they want it.
func openTarget(dir string) (int, error) {
	fd, err := retry(func() (int, error) { return unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) })
	switch {
	case errors.Is(err, unix.ENOENT):
		return -1, nil
	case errors.Is(err, unix.ENOTDIR):
		return -1, fmt.Errorf("%q is not a folder", dir)
	case err != nil:
		return -1, fmt.Errorf("open %q: %w", dir, err)
	}
	return fd, nil
}

// lockTarget keeps another restore out: it would take this one's temporary
// files for those of a killed one.
func lockTarget(fd int, dir string) error {
	err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%q: %w", dir, ErrBusy)
	}
	return nil // a file system without locks: then nobody can tell
}

// There reports whether the folder is there.
func (t *Target) There() bool { return t.root >= 0 }

// Make makes the folder, and those above it that are missing.
func (t *Target) Make(mode os.FileMode) error {
	if err := os.MkdirAll(path.Dir(t.dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(t.dir, mode); err != nil {
		return err
	}
	root, err := openTarget(t.dir)
	if err != nil {
		return err
	}
	t.root = root
	t.made.Add(t.base)
	return lockTarget(root, t.dir)
}

// Sync waits for the disk to have all that was written.
func (t *Target) Sync() error { return unix.Syncfs(t.root) }

// litterPrefix begins the temporary names of all restores. The run's token and
// the entry's number in the snapshot follow.
const litterPrefix = ".vaultik-restore-"

func (t *Target) temporary(slot uint64) string {
	return fmt.Sprintf("%s%s-%x", litterPrefix, t.token, slot)
}

// Litter reports whether a name is a temporary one, of whichever run.
func Litter(name string) bool {
	rest, ok := strings.CutPrefix(name, litterPrefix)
	token, slot, dashed := strings.Cut(rest, "-")
	hex := func(s string) bool { return s != "" && strings.Trim(s, "0123456789abcdef") == "" }
	return ok && dashed && len(token) == 8 && hex(token) && hex(slot)
}
