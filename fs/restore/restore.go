package restore

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/fs/restore/disk"
	"git.eeqj.de/sneak/vaultik/fs/restore/spool"
	"git.eeqj.de/sneak/vaultik/metastore"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrDeclined: Confirm said no. Nothing was changed.
	ErrDeclined = errors.New("nothing was restored")
)

// Overwrite says what happens to what is there already.
type Overwrite string

// The choices for Options.Overwrite. A directory is never overwritten: what is
// in it is looked at one by one, and its metadata is set unless the choice is
// to keep what is there.
const (
	IfChanged Overwrite = "if-changed" // unless size and modification time, or a link's target, are those of the snapshot
	Always    Overwrite = "always"
	IfNewer   Overwrite = "if-newer" // if the snapshot's is newer
	Never     Overwrite = "never"
)

// Options say what is restored, where to and how. Tree and Target are needed.
type Options struct {
	Tree   *fs.Tree
	Path   string // what of the snapshot, from "/" on; "" is all
	Target string // the folder that becomes Path, or that Path is put into if it is no folder; made if it is missing

	// Patterns in the language of a backup's excludes, held against paths of
	// the snapshot, relative to Path or else to the snapshot's roots. With
	// Include, only what matches it is restored, with all below; Exclude leaves
	// out of that.
	Include, Exclude []string

	Overwrite Overwrite
	Delete    bool // remove what is not in the snapshot, see delete.go
	// Confirm is asked before anything is changed if something is to be
	// deleted; nil is a yes.
	Confirm    func(context.Context, Deletion) (bool, error)
	Keep       []string // folders that are never deleted nor looked into for that
	LargerThan int64    // files of more bytes were excluded from the backup, so Delete keeps them; 0: none were

	DryRun bool
	Verify bool        // read back and compare
	Root   bool        // owners, setuid and setgid bits, devices and the security and trusted attributes are restored
	Temp   string      // folder for the plan if it outgrows memory; "" is the system's
	Report func(Event) // may be nil; called from several goroutines

	spoolLimit int // records of the plan in memory; 0 is sensible
}

// Deletion is what is to be deleted.
type Deletion struct {
	Entries, Bytes int64
	Paths          []string // the first of them, below the folder
}

// Event is one of the following.
type Event struct {
	Problem  *Problem
	Progress *Progress
	Action   *Action // with DryRun only
}

// Action is a change that would be made.
type Action struct {
	Kind string // "make", "replace", "delete"
	Path string // below the folder
}

// Progress is how far a restore is. The totals are 0 while it is planned.
type Progress struct {
	Phase             string // "plan", "restore", "verify"
	Entries, Total    int64
	Bytes, TotalBytes int64
}

// Counts are numbers of entries.
type Counts struct {
	Directories, Files, Symlinks, Specials, Links int64
	Bytes                                         int64 // of the files' content
}

// Result is what a restore did, or would do.
type Result struct {
	Planned  Counts // to be made or replaced; of directories those that are missing
	Done     Counts // made or replaced
	Same     int64  // entries that were as they should be
	Kept     int64  // entries that are different and were kept as Overwrite says
	Excluded int64  // entries left out, folders counting once
	Doomed   int64  // entries to be deleted
	Deleted  int64
	Problems int64 // reported

	// Not done because only root may.
	Owners, SetIDs, Devices, Attributes int64
	// Extended attributes that the target's file system cannot hold.
	Unsupported int64

	Blobs      int64 // that content comes from
	BlobBytes  int64 // planned to be fetched of them
	Requests   int64 // made of the store for content
	Fetched    int64 // bytes they brought
	Rescued    int64 // chunks that came from where another snapshot says they are; not in Requests and Fetched
	Verified   int64 // files
	VerifyRead int64 // bytes
}

// Incomplete reports whether something could not be restored as it was.
func (r *Result) Incomplete() bool { return r.Problems > 0 || r.Unsupported > 0 }

// Run restores. What goes wrong with single entries is reported and counted; an
// error is what ended it all, and then the result tells how far it came. A
// second run goes on from there.
func Run(ctx context.Context, o Options) (result *Result, err error) {
	r, err := newRun(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.plan(ctx); err != nil {
		return r.result(), err
	}
	if o.DryRun {
		return r.result(), nil
	}
	if err := r.confirm(ctx); err != nil {
		return r.result(), err
	}
	ctx, r.cancel = context.WithCancelCause(ctx)
	defer r.cancel(nil)
	for _, stage := range []func(context.Context) error{
		r.makeTarget, r.delete, r.folders, r.makeOthers, r.contents, r.links, r.finish, r.verify,
	} {
		if err := stage(ctx); err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause // what was going on is of no interest
			}
			return r.result(), err
		}
	}
	return r.result(), nil
}

// confirm asks whether to delete.
func (r *run) confirm(ctx context.Context) error {
	if r.doomed.Entries == 0 || r.Confirm == nil {
		return nil
	}
	yes, err := r.Confirm(ctx, r.doomed)
	if err == nil && !yes {
		err = ErrDeclined
	}
	return err
}

// run is one restore.
type run struct {
	Options
	place  place
	pick   picker
	target *disk.Target
	failed spool.Set // slots that could not be restored, and were told
	cancel context.CancelCauseFunc

	dirs    *spool.Records[entry] // in walk order
	others  *spool.Records[entry] // everything else without data
	uses    *spool.Records[use]   // of files with data, by blob
	names   *spool.Records[name]  // of inodes with several, by inode
	checks  *spool.Records[entry] // files to verify
	extra   spool.Paths           // to be deleted
	doomed  Deletion
	litter  int64     // of extra: what a killed run left
	claimed spool.Set // inodes that have a first name
	needs   []need

	planned, done counts
	tally         struct {
		same, kept, excluded, deleted, problems          atomic.Int64
		devices                                          atomic.Int64
		requests, fetched, verified, verifyRead, rescued atomic.Int64
	}
}

// counts are Counts in the making.
type counts struct {
	directories, files, symlinks, specials, links, bytes atomic.Int64
}

func (c *counts) of(t metastore.Type) *atomic.Int64 {
	switch t {
	case metastore.Directory:
		return &c.directories
	case metastore.Regular:
		return &c.files
	case metastore.Symlink:
		return &c.symlinks
	}
	return &c.specials
}

func (c *counts) entries() int64 {
	return c.directories.Load() + c.files.Load() + c.symlinks.Load() + c.specials.Load() + c.links.Load()
}

func (c *counts) counts() Counts {
	return Counts{
		Directories: c.directories.Load(), Files: c.files.Load(), Symlinks: c.symlinks.Load(),
		Specials: c.specials.Load(), Links: c.links.Load(), Bytes: c.bytes.Load(),
	}
}

func (r *run) result() *Result {
	t, skipped := &r.tally, &r.target.Skipped
	res := &Result{
		Planned: r.planned.counts(), Done: r.done.counts(),
		Same: t.same.Load(), Kept: t.kept.Load(), Excluded: t.excluded.Load(),
		Doomed: r.doomed.Entries, Deleted: t.deleted.Load(), Problems: t.problems.Load(),
		Owners: skipped.Owners.Load(), SetIDs: skipped.SetIDs.Load(), Devices: t.devices.Load(),
		Attributes: skipped.Attributes.Load(), Unsupported: skipped.Unsupported.Load(),
		Blobs: int64(len(r.needs)), Requests: t.requests.Load(), Fetched: t.fetched.Load(),
		Verified: t.verified.Load(), VerifyRead: t.verifyRead.Load(), Rescued: t.rescued.Load(),
	}
	for _, n := range r.needs {
		res.BlobBytes += n.bytes
	}
	return res
}

func (r *run) close() error {
	return errors.Join(r.dirs.Close(), r.others.Close(), r.uses.Close(), r.names.Close(), r.checks.Close(), r.extra.Close(), r.target.Close())
}

// Check makes sure that the options make sense, and fills in what is missing.
func (o *Options) Check() error {
	switch o.Overwrite {
	case "":
		o.Overwrite = IfChanged
	case IfChanged, Always, IfNewer, Never:
	default:
		return fmt.Errorf("overwrite %q: choose one of %s, %s, %s and %s", o.Overwrite, Always, IfChanged, IfNewer, Never)
	}
	return nil
}
