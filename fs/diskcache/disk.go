package diskcache

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	lockName   = "lock"
	folderMode = 0o700
	fileMode   = 0o600
	allocation = 4 << 10 // bytes in which file systems give out space

	// lockPatience is how long a record waits for other processes, and lockTries
	// how often it tries at least: on a busy machine it has few chances in that
	// time. They hold the lock for a write into memory, or for a look through the
	// folder.
	lockPatience = time.Second
	lockTries    = 100
	// pause is how long nothing is recorded after something went wrong.
	pause = time.Minute
)

// errBusy: another process holds the lock and does not let go.
var errBusy = errors.New("another process holds its lock")

// identity tells a file from a later one of the same name.
type identity struct {
	inode uint64
	born  unix.StatxTimestamp // zero where the file system does not say
}

type status struct {
	identity
	size  int64
	links uint32
	used  time.Time
}

func statusOf(f *os.File) (status, error) {
	var s unix.Statx_t
	err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &s)
	if err != nil {
		return status{}, &fs.PathError{Op: "statx", Path: f.Name(), Err: err}
	}
	return status{identity{s.Ino, s.Btime}, int64(s.Size), s.Nlink, time.Unix(s.Mtime.Sec, int64(s.Mtime.Nsec))}, nil
}

// allocated is what a file of n bytes takes.
func allocated(n int64) int64 { return (n + allocation - 1) / allocation * allocation }

// disk appends to the files of a folder and removes them. Its methods are
// called one at a time.
type disk struct {
	folder  string
	limit   int64
	indexes *indexes
	lock    *os.File // nil until it is needed
	counted bool     // this process has counted what is there
}

// record appends a record, if that is possible.
func (c *Cache) record(a *appending) {
	c.writing.Lock()
	defer c.writing.Unlock()
	now := c.o.Now()
	if a.voided != c.voided.Load() || now.Before(c.paused) {
		return
	}
	b := a.buf[:int64(headerSize)+a.n]
	seal(b, a.key, a.off)
	if err := c.disk.append(a.name, a.span, b); err != nil {
		c.paused = now.Add(pause)
		c.warn(err)
	}
}

// append adds a record of s to a file unless it has all of s.
func (d *disk) append(name string, s span, b []byte) error {
	err := d.add(name, s, b)
	if errors.Is(err, fs.ErrNotExist) { // somebody removed the folder meanwhile
		err = d.add(name, s, b)
	}
	return err
}

func (d *disk) add(name string, s span, b []byte) (err error) {
	if err := d.acquire(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Flock(int(d.lock.Fd()), unix.LOCK_UN)) }()
	size, err := d.makeRoom(allocated(int64(len(b))))
	if err != nil || size < 0 {
		return err
	}
	f, end, full, err := d.open(name, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if full {
		return nil
	}
	// First the size: if this is killed in between, it is too high.
	if err := d.setSize(size + allocated(end+int64(len(b))) - allocated(end)); err != nil {
		return err
	}
	if _, err := f.WriteAt(b, end); err != nil {
		return errors.Join(err, f.Truncate(end))
	}
	return nil
}

// acquire takes the lock.
func (d *disk) acquire() error {
	if d.lock != nil {
		if s, err := statusOf(d.lock); err != nil || s.links == 0 { // somebody removed the folder
			d.lock.Close()
			d.lock = nil
		}
	}
	if d.lock == nil {
		if err := d.openLock(); err != nil {
			return err
		}
	}
	end := time.Now().Add(lockPatience)
	for tries := 1; ; tries++ {
		err := unix.Flock(int(d.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case errors.Is(err, unix.EINTR):
		case !errors.Is(err, unix.EWOULDBLOCK):
			if err != nil {
				err = &fs.PathError{Op: "lock", Path: d.lock.Name(), Err: err}
			}
			return err
		case tries >= lockTries && time.Now().After(end):
			return fmt.Errorf("%q: %w", d.lock.Name(), errBusy)
		}
		time.Sleep(time.Millisecond)
	}
}

// openLock makes the folder if need be.
func (d *disk) openLock() (err error) {
	if err := os.MkdirAll(d.folder, folderMode); err != nil {
		return err
	}
	// The ciphertext is secret from nobody who has the store; when it was
	// read is nobody's business.
	if err := os.Chmod(d.folder, folderMode); err != nil {
		return err
	}
	d.counted = false
	d.lock, err = os.OpenFile(filepath.Join(d.folder, lockName), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, fileMode)
	return err
}

// open opens a file for a record of s, and says where its last whole record
// ends. full: it has all of s, or as many records as are allowed.
func (d *disk) open(name string, s span) (f *os.File, end int64, full bool, err error) {
	path := filepath.Join(d.folder, name)
	for {
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, fileMode)
		if err != nil {
			return nil, 0, false, err
		}
		x := d.indexes.get(name)
		x.mu.Lock()
		info, err := x.update(f)
		end, full = x.end, err == nil && (len(x.records) >= maxRecords || x.covers(s))
		x.mu.Unlock()
		if err == nil && info.size > end { // somebody was killed over it
			err = f.Truncate(end)
		}
		if !errors.Is(err, errDamaged) {
			if err != nil {
				f.Close()
			}
			return f, end, full, err
		}
		f.Close()
		d.indexes.drop(name)
		if err := os.Remove(path); err != nil {
			return nil, 0, false, err
		}
	}
}

// makeRoom returns the size of all files, after it has made room for need
// bytes; -1 if there can be none.
func (d *disk) makeRoom(need int64) (size int64, err error) {
	if need > d.limit {
		return -1, nil
	}
	var b [8]byte
	_, err = d.lock.ReadAt(b[:], 0)
	size = int64(binary.LittleEndian.Uint64(b[:]))
	if d.counted && err == nil && size >= 0 && size <= d.limit-need {
		return size, nil
	}
	if size, err = d.shed(need); err != nil {
		return 0, err
	}
	d.counted = true
	return size, nil
}

func (d *disk) setSize(size int64) error {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(size))
	_, err := d.lock.WriteAt(b[:], 0)
	return err
}

// shed counts all files, and if need bytes have no room, removes those that
// were used longest ago until there is a bit more than that.
func (d *disk) shed(need int64) (size int64, err error) {
	entries, err := os.ReadDir(d.folder)
	if err != nil {
		return 0, err
	}
	var files []fs.FileInfo
	for _, e := range entries {
		if _, ok := keyOf(e.Name()); !ok {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // a damaged one that somebody removed
		}
		if err != nil {
			return 0, err
		}
		files = append(files, info)
		size += allocated(info.Size())
	}
	if size <= d.limit-need {
		return size, nil
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int {
		return cmp.Or(a.ModTime().Compare(b.ModTime()), cmp.Compare(a.Name(), b.Name()))
	})
	// An eighth at a time, or each further record would look through the folder.
	for _, f := range files {
		if size <= max(0, d.limit-d.limit/8-need) {
			break
		}
		if err := os.Remove(filepath.Join(d.folder, f.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, err
		}
		size -= allocated(f.Size())
	}
	return size, nil
}

// close lets go of the folder.
func (d *disk) close() error {
	if d.lock == nil {
		return nil
	}
	return d.lock.Close()
}
