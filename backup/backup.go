// Package backup is the writer: it reads folders and makes a snapshot of them in
// a store.
//
//	Source ─ scan ─ read ─ pack ─ compress ─ seal ─ upload ─┐
//	              Index (metastore) ──── heal ─ commit ─────┴─ Store (remote)
//
// Run is the whole of it, for one set. Package scan walks and compares what
// package source shows it; each stage behind it has a file: read.go and cut.go,
// pack.go, compress.go and upload.go. settle.go looks after what an earlier run
// left; heal.go reads again what the store has lost, compact.go what is to move
// to another blob; dump.go, lists.go and commit.go upload the metadata and the
// manifest.
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

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"filippo.io/age"
	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/backup/exclude"
	"git.eeqj.de/sneak/vaultik/backup/scan"
	"git.eeqj.de/sneak/vaultik/backup/source"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/index"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrCloned: the store holds something under this writer's next seq that
	// this index did not write.
	ErrCloned = errors.New("another copy of this writer's index is in use, or this one is an old copy")
	// ErrStoreLost: the store has no trace of the index's newest run.
	ErrStoreLost = errors.New("the store has lost this writer's newest snapshot")
)

// Config wires a backup. All fields but Report and the bounds are needed.
type Config struct {
	Store      remote.Store
	Index      *index.Index
	Source     source.FS
	Writer     string
	Hostname   string
	Version    string // of vaultik, and the git revision it was built from
	Revision   string
	Recipients []string // age recipients; every one can read the snapshot
	Signer     remote.SigningKey
	Root       remote.PublicKey // who certifies signers, whose tombstones count
	Chunking   metastore.Chunking
	Level      seal.Level
	BlobSize   int64            // ciphertext bytes at which a blob is closed
	Now        func() time.Time // the clock

	// CompactPerRun bounds what a run reads again and uploads anew so that
	// mostly dead blobs need not be kept, in bytes of plaintext; 0 is nothing.
	CompactPerRun int64
	// ResealPerRun bounds what a run reads again and uploads anew after a
	// change of recipients, in bytes of plaintext; until all is done, snapshots
	// need blobs that only the former recipients can read. 0 is all at once.
	ResealPerRun int64

	Report func(Event) // called from several goroutines; may be nil
}

// Set is a named list of paths to back up.
type Set struct {
	Name  string
	Roots []string // absolute paths
	Rules exclude.Rules
	Tags  []string // in the manifest, too, so in the clear; remote.CheckTag says what they may be
}

// Result says what a run did. Its snapshot is in the store.
type Result struct {
	Snapshot     string
	Set          string
	Seq          remote.Seq
	Manifest     remote.Hash
	Entries      int64     // entries in the snapshot: files, folders, links, …
	Bytes        int64     // content bytes of its regular files
	Changed      int64     // entries recorded anew or in a new version, those above the roots not counted
	Removed      int64     // entries gone since the set's last run
	Read         int64     // content bytes read
	NewBytes     int64     // plaintext bytes of chunks that were not stored before
	Stored       int64     // ciphertext bytes of the blobs uploaded
	Metadata     int64     // bytes of the dump and lists uploaded
	Blobs        int       // number of blobs uploaded
	Forgotten    int       // purged snapshots that the index has learnt of
	Closed       []string  // sets that had no other snapshots
	Retired      int       // mostly dead blobs that are not to be kept
	RetiredBytes int64     // of their ciphertext
	Moved        int64     // plaintext bytes that were stored, read again and uploaded anew, to give up blobs
	Former       int64     // ciphertext bytes of blobs that the snapshot needs and only former recipients can read
	Problems     []Problem // the first 10,000; Report got all of them
	Missed       int64     // how many were Unreadable or Lost
	Started      time.Time
	Finished     time.Time
	Unverified   bool // the credentials could not list or look at objects, so nothing was compared after upload
}

// Incomplete reports whether some of what the set names is not in the
// snapshot.
func (r *Result) Incomplete() bool { return r.Missed > 0 }

// Run backs up one set and commits its snapshot:
//
//	settle    finish or undo what an earlier run left behind, learn what was purged
//	clean     forget what nobody needs any more, retire mostly dead blobs
//	scan      walk the roots, find what changed since the set's last run
//	read      read, cut into chunks, hash               (two workers a core: disks wait)
//	pack      drop chunks already stored, fill frames, record files
//	compress  one zstd frame at a time                  (one worker a core)
//	seal      encrypt frames into blobs
//	upload    put blobs, record them in the index       (several at once)
//	move      the same again for chunks of retired blobs
//	commit    compare with the store, dump, sign, put the manifest
//
// The stages run at once, joined by channels whose content is bounded in
// bytes. Scan decides an order, by folder and name, and everything behind it
// keeps that order, so that a reader who walks the tree reads along the blobs.
//
// If Run fails there is no snapshot; what was uploaded is kept and the next
// run need not send it again. Problems with single files never make it fail.
func Run(ctx context.Context, c Config, s Set) (*Result, error) {
	recipients, err := seal.ParseRecipients(c.Recipients)
	if err != nil {
		return nil, err
	}
	w := &writer{Config: c, set: s, recipients: recipients, result: Result{Set: s.Name, Started: c.Now()}}
	if w.Report == nil {
		w.Report = func(Event) {}
	}
	if w.matcher, err = exclude.Compile(s.Rules, s.Roots); err != nil {
		return nil, err
	}
	if err := w.settle(ctx); err != nil {
		return nil, err
	}
	if err := w.clean(ctx); err != nil {
		return nil, fmt.Errorf("clean up the index: %w", err)
	}
	if w.snapshot, err = w.snapshotID(ctx); err != nil {
		return nil, err
	}
	w.run, err = c.Index.Begin(ctx, index.RunInfo{
		Set: s.Name, SnapshotID: w.snapshot,
		Started: metastore.TimeOf(w.result.Started), Recipients: seal.RecipientSet(c.Recipients),
		Spread: c.ResealPerRun > 0,
	})
	if err != nil {
		return nil, fmt.Errorf("begin a run in the index: %w", err)
	}
	if err := w.work(ctx); err != nil {
		// Undo with a context of its own: ctx may be the reason we are here.
		return nil, errors.Join(err, w.run.Rollback(context.WithoutCancel(ctx)))
	}
	if err := w.publish(ctx); err != nil {
		return nil, err
	}
	w.result.Problems, w.result.Missed = w.tally.problems, w.tally.missed
	return &w.result, nil
}

// work does all that can be undone: everything before the intent is stored.
func (w *writer) work(ctx context.Context) error {
	if err := w.pipeline(ctx, func(ctx context.Context, out *queue) error { return w.scanner(out).Walk(ctx) }); err != nil {
		return err
	}
	if err := w.move(ctx); err != nil {
		return err
	}
	if err := w.heal(ctx); err != nil {
		return err
	}
	return w.commit(ctx)
}

// writer is one run at work.
type writer struct {
	Config
	set        Set
	recipients []age.Recipient
	matcher    *exclude.Matcher
	run        *index.Run
	snapshot   string
	result     Result
	tally      tally
	buffers    buffers
	transit    transit
	intent     intent
}

// pipeline runs the stages between scan and upload until all that produce
// emits has been recorded and uploaded.
func (w *writer) pipeline(ctx context.Context, produce func(context.Context, *queue) error) error {
	cores := runtime.GOMAXPROCS(0)
	g, ctx := errgroup.WithContext(ctx)
	var (
		jobs   = newQueue(ctx)
		packed = newFrames(cores)
		blobs  = make(chan *sealedBlob)
		slots  = make(chan struct{}, uploads+1)
	)
	g.Go(func() error { defer jobs.close(); return produce(ctx, jobs) })
	for range 2 * cores {
		g.Go(func() error { return w.read(ctx, jobs) })
	}
	for range cores {
		g.Go(func() error { return w.compress(ctx, packed) })
	}
	g.Go(func() error { defer packed.close(); return w.pack(ctx, jobs, packed) })
	g.Go(func() error { defer close(blobs); return w.seal(ctx, packed, blobs, slots) })
	for range uploads {
		g.Go(func() error { return w.upload(ctx, blobs, slots) })
	}
	return errors.Join(g.Wait(), jobs.drain())
}

// scanner looks at the set's paths and emits into out.
func (w *writer) scanner(out *queue) *scan.Scanner {
	return scan.New(scan.Config{
		Source: w.Source, Run: w.run, Matcher: w.matcher, Set: w.set.Name, Roots: w.set.Roots,
		Emit: out.emit, Progress: w.progress,
		Problem: func(where string, err error) { w.problem(Unreadable, where, err) },
		Seen:    &w.tally.seen, Removed: &w.tally.removed,
	})
}

// uploads is how many blobs are put at once. Each holds a blob's worth of
// memory, and so does the next one, which fills meanwhile; there are never more.
// Measured with blobs of 32 MiB and a server that takes 200 ms to answer beyond
// a round trip of 40 ms, one at a time fills a link of 300 Mbit/s to 76 %, two to 89 %, four to 97 %, and
// six no more than that.
const uploads = 4

// send puts v into ch unless ctx ends first.
func send[T any](ctx context.Context, ch chan<- T, v T) error {
	select {
	case ch <- v:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// receive takes from ch; io.EOF when it is closed and empty.
func receive[T any](ctx context.Context, ch <-chan T) (T, error) {
	var none T
	select {
	case v, ok := <-ch:
		if !ok {
			return none, io.EOF
		}
		return v, nil
	case <-ctx.Done():
		return none, ctx.Err()
	}
}
