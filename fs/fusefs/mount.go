package fusefs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/fs/fusefs/mountpoint"
)

// ErrBusy: something still uses the mount.
var ErrBusy = errors.New("in use")

// Options of a mount. The zero value is good.
type Options struct {
	// Source is what the mount table names as the mount's source; "vaultik" by
	// default.
	Source string
	// AllowOther opens the mount to all users, with the kernel checking
	// owners, modes and ACLs. Without it only the mounting user gets in, who
	// may read everything. fusermount3 wants user_allow_other in
	// /etc/fuse.conf for it.
	AllowOther bool
	// Owner, unless nil, is shown as the owner of everything, and may read
	// everything: see Owner.
	Owner *Owner
	// NoExec lets no program be run from the mount.
	NoExec bool
	// Timeout of each request, after which it fails with EIO; 60 s by default.
	Timeout time.Duration
	// Refresh says how often a store is asked for new snapshots; one minute by
	// default, never if negative.
	Refresh time.Duration
	// Warn is told why requests failed and why refreshing did. It is called
	// from many goroutines and must not touch the mount.
	Warn func(error)

	wrap func(fuse.RawFileSystem) fuse.RawFileSystem // lets tests count requests
}

// Mount is a mounted file system. It lives until Unmount, or until somebody
// unmounts it with other means.
type Mount struct {
	dir    string
	fs     *fileSystem
	server *fuse.Server
	work   errgroup.Group
	notify sync.Mutex // one round of notifications at a time

	serving context.Context // ends with the mount
}

// MountTree mounts one snapshot: its "/" is dir. The caller closes t after Wait.
func MountTree(dir string, t *fs.Tree, o Options) (*Mount, error) {
	return mount(dir, &fileSystem{tree: t, xattrs: t.HasXattrs()}, o)
}

// MountCatalog mounts all snapshots of a store: see layout for the folders. A
// snapshot is loaded when somebody first looks into it. The catalog should
// have been refreshed once; the caller closes it after Wait.
func MountCatalog(dir string, c *fs.Catalog, o Options) (*Mount, error) {
	l := newLayout(c)
	l.update()
	// Nobody knows what snapshots will come, so ENOSYS for xattrs, which holds
	// for the life of the mount, is out of the question.
	m, err := mount(dir, &fileSystem{layout: l, xattrs: true}, o)
	if err != nil {
		return nil, err
	}
	if o.Refresh == 0 {
		o.Refresh = time.Minute
	}
	if o.Refresh > 0 {
		ctx, stop := context.WithCancel(context.Background())
		m.work.Go(func() error { m.server.Wait(); stop(); return nil })
		m.work.Go(func() error { m.refreshEvery(ctx, o.Refresh); return nil })
	}
	return m, nil
}

func mount(dir string, f *fileSystem, o Options) (*Mount, error) {
	if o.Timeout <= 0 {
		o.Timeout = time.Minute
	}
	if o.Warn == nil {
		o.Warn = func(error) {}
	}
	dir, err := mountpoint.Check(dir)
	if err != nil {
		return nil, err
	}
	f.RawFileSystem = fuse.NewDefaultRawFileSystem()
	f.timeout, f.warn = o.Timeout, newNews(o.Warn).tell
	f.owner = fuse.Owner{Uid: uint32(os.Getuid()), Gid: uint32(os.Getgid())}
	if f.shown = o.Owner; f.shown != nil {
		f.owner = fuse.Owner{Uid: f.shown.UID, Gid: f.shown.GID}
	}
	var raw fuse.RawFileSystem = f
	if o.wrap != nil {
		raw = o.wrap(raw)
	}
	m := &Mount{dir: dir, fs: f}
	f.pusher = newPusher(f, func(ino uint64, data []byte) fuse.Status { return m.server.InodeNotifyStoreCache(ino, 0, data) })
	if m.server, err = fuse.NewServer(raw, dir, mountOptions(o)); err != nil {
		return nil, thisMachine().refused(dir, o, err)
	}
	var stop context.CancelFunc
	m.serving, stop = context.WithCancel(context.Background())
	m.work.Go(func() error { defer stop(); m.server.Serve(); return nil })
	m.work.Go(func() error { f.pusher.run(m.serving); return nil })
	if err := m.server.WaitMount(); err != nil && !m.gone(err) {
		return nil, errors.Join(fmt.Errorf("mount on %q: %w", dir, err), m.Unmount())
	}
	m.readAhead()
	return m, nil
}

// gone reports whether waiting for the mount failed with err because somebody has
// unmounted it already, so that there is nothing left but to Wait.
func (m *Mount) gone(err error) bool {
	if !errors.Is(err, syscall.ENOENT) { // a file that only a mount has
		return false
	}
	mounted, err := mountpoint.Mounted(m.dir)
	return err == nil && !mounted
}

func mountOptions(o Options) *fuse.MountOptions {
	m := &fuse.MountOptions{
		FsName: cmp.Or(o.Source, "vaultik"), Name: "vaultik",
		AllowOther: o.AllowOther,
		// A mount that is not read-only has its access times invalidated by
		// every read, and asks for the attributes each time.
		Options:          []string{"ro"},
		DirectMountFlags: unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV,
		// Root needs no helper program, and gets a better error without it.
		DirectMountStrict: os.Geteuid() == 0,
		MaxWrite:          ioSize, // max_read, and how many pages a request may have
		MaxReadAhead:      ioSize,
		MaxBackground:     64, // read-aheads at a time; each may wait for the store

		EnableSymlinkCaching:     true,
		ExplicitDataCacheControl: true,                    // content never changes: no invalidation by mtime
		DisableSplice:            true,                    // costs three system calls more a READ
		ExtraCapabilities:        fuse.CAP_EXPORT_SUPPORT, // see handle.go
		PanicHandler: func(v any) fuse.Status {
			o.Warn(fmt.Errorf("internal error: %v", v))
			return fuse.EIO
		},
		// It says what status does better, and what is normal when signals fly.
		Logger: log.New(io.Discard, "", 0),
	}
	if o.AllowOther {
		m.Options = append(m.Options, "default_permissions")
		m.EnableAcl = true // ACLs restrict as well as permit
	}
	if o.NoExec {
		m.Options = append(m.Options, "noexec")
	}
	return m
}

// Dir is the absolute path of the mount.
func (m *Mount) Dir() string { return m.dir }

// Wait waits until the file system is unmounted, by whomever, and all of its
// requests have been answered.
func (m *Mount) Wait() error { return m.work.Wait() }

// Unmount unmounts the file system and waits as Wait does. It fails with
// ErrBusy while files are open or somebody is inside.
func (m *Mount) Unmount() error {
	if err := m.server.Unmount(); err != nil {
		if busy(err, m.dir) {
			return fmt.Errorf("unmount %q: %w (lsof +f -- %q shows by whom)", m.dir, ErrBusy, m.dir)
		}
		return fmt.Errorf("unmount %q: %w", m.dir, err)
	}
	return m.Wait()
}

// busy reports whether unmounting failed because the mount is in use. The
// helper program only says so in words, so there the mount still being in its
// place has to do.
func busy(err error, dir string) bool {
	if errors.Is(err, syscall.EBUSY) {
		return true
	}
	mounted, _ := mountpoint.Mounted(dir)
	return mounted
}

// Refresh looks for new snapshots now and makes them appear. It does nothing
// in a mount of one snapshot.
func (m *Mount) Refresh(ctx context.Context) error {
	l := m.fs.layout
	if l == nil {
		return nil
	}
	_, err := l.catalog.Refresh(ctx)
	m.notify.Lock()
	defer m.notify.Unlock()
	changes := l.update()
	if len(changes) == 0 || m.serving.Err() != nil {
		return err
	}
	m.invalidate(changes)
	// A listing that was made before and arrives behind this is kept by the
	// kernel, and would be shown until the next change.
	m.work.Go(func() error {
		select {
		case <-m.serving.Done():
		case <-time.After(brief):
			m.notify.Lock()
			defer m.notify.Unlock()
			m.invalidate(changes)
		}
		return nil
	})
	return err
}

// invalidate makes the kernel ask for what changed.
func (m *Mount) invalidate(changes []change) {
	last := uint64(0)
	for _, c := range changes {
		// No lock of the layout is held here: the kernel may first want the
		// answer to a LOOKUP in the same directory.
		m.server.EntryNotify(c.dir, c.name)
		if c.dir != last {
			m.server.InodeNotify(c.dir, 0, 0)
			last = c.dir
		}
	}
}

func (m *Mount) refreshEvery(ctx context.Context, d time.Duration) {
	t := time.NewTicker(d)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if err := m.Refresh(ctx); err != nil && ctx.Err() == nil {
			m.fs.warn(fmt.Errorf("look for new snapshots: %w", err))
		}
	}
}

// readAhead lets the kernel read 1 MiB ahead instead of 128 KiB, which doubles
// the throughput. Only root may; for others it stays as it is.
func (m *Mount) readAhead() {
	if os.Geteuid() != 0 {
		return
	}
	root, err := unix.Open(m.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(root)
	var st unix.Stat_t
	var kind unix.Statfs_t
	if unix.Fstatfs(root, &kind) != nil || kind.Type != unix.FUSE_SUPER_MAGIC || unix.Fstat(root, &st) != nil {
		return // unmounted already: this is the disk below
	}
	bdi := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(st.Dev), unix.Minor(st.Dev))
	_ = os.WriteFile(bdi, []byte(strconv.Itoa(ioSize>>10)), 0) // sysfs may be absent or read-only
}
