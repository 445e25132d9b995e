// Package check finds out whether what a store holds can be restored, which
// takes an identity: it decrypts every blob that snapshots need, decompresses
// every frame and computes the hash of every chunk, and compares that with what
// the snapshots' dumps say.
//
//	manifests ─ union of their blobs ─ each once: fetch, hash, decrypt, chunks ─┐
//	manifests ─ each dump: load (metastore validates it), blobs, places ────────┴─ files
//
// What it promises: a snapshot of which it reports nothing can be restored in
// full, byte for byte, as of the moment when its blobs were read. Each blob is
// fetched once however many snapshots need it, and each part of a dump that is
// loaded already once; one that is found damaged is fetched a second time, to
// tell a bad line from a bad disk.
//
// It holds at most 96 MiB of blobs, for every core a frame and what it decompresses
// to (at most 16 MiB each, half a mebibyte in what this program writes), 8 bytes
// for every chunk and 400 bytes for every blob, and of the snapshot at hand 100
// bytes for every damaged chunk and content.
package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/semaphore"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/metastore/view"
	"git.eeqj.de/sneak/vaultik/remote"
)

// Options say what is checked. Catalog is needed.
type Options struct {
	Catalog   *fs.Catalog
	Snapshots []fs.Snapshot // those of the catalog that are to be checked
	// Store is read from; nil is the catalog's. It should be the store itself:
	// a cache in front of it would vouch for what it keeps.
	Store remote.Store

	Report   func(Finding)  // called by one goroutine at a time; may be nil
	Progress func(Progress) // likewise
}

// Kind says what a finding is about.
type Kind string

// The kinds of findings.
const (
	// KindDump: a snapshot's metadata cannot be read, or is not what it has to
	// be. If it cannot be read, nothing is known about the snapshot's files.
	KindDump Kind = "dump"
	// KindBlob: a blob is missing, or something in it is not what it should be.
	KindBlob Kind = "blob"
	// KindFile: a file of a snapshot has content that is not where the
	// snapshot's dump says. Each of several hard links is a file.
	KindFile Kind = "file"
)

// Finding is one thing that is wrong.
type Finding struct {
	Kind     Kind
	Snapshot fs.Snapshot // of KindDump and KindFile
	Key      string      // of the object; of KindFile the first blob that is to blame; "" if there is none
	Path     string      // of KindFile, from "/" on, any bytes
	Bytes    int64       // of KindFile: how many of its bytes are not there
	// Healed is said of a file of which all is there after all, because the
	// newest snapshot of one of the writer's sets has it elsewhere: readers look
	// there by themselves.
	Healed bool
	// Err is what is wrong, without the key. It wraps fs.ErrLost,
	// remote.ErrCorrupt, seal.ErrNoIdentity or what else was the reason.
	Err error
}

// Tally counts objects or chunks.
type Tally struct {
	Count int64
	Bytes int64
}

func (t *Tally) add(bytes int64) { t.Count++; t.Bytes += bytes }

// Progress is how far a check is.
type Progress struct {
	Blobs, AllBlobs         Tally
	Snapshots, AllSnapshots int
}

// Result is what was looked at, and how much was wrong with it.
type Result struct {
	Snapshots int   // of which the dump could be read
	Dumps     Tally // parts that were fetched, to be loaded or compared
	Blobs     Tally // that were fetched, bytes as stored
	Chunks    Tally // that are what they should be; bytes as backed up

	BadDumps, BadBlobs int64 // findings
	Damaged            int64 // files, as often as snapshots show them; not those that are
	Healed             int64 // there after all
}

// Clean reports whether everything is there, be it elsewhere.
func (r Result) Clean() bool { return r.BadDumps == 0 && r.Damaged == 0 }

// checker is a check.
type checker struct {
	Options
	seed    maphash.Seed
	whole   int64               // bytes of the largest blob that is fetched with one request
	flight  *semaphore.Weighted // bytes of blobs in memory
	workers *semaphore.Weighted // one for each batch of frames that is decompressed
	free    sync.Pool           // of *[]byte, that blobs were in
	lost    map[string]bool     // of Damaged: keys of blobs; nil for Run

	mu       sync.Mutex
	states   map[string]*state // by key
	result   Result
	progress Progress

	lists map[string]knownList // the last one by writer
	parts map[string]bool      // of dumps that were compared
}

// knownList is a blob list that was fetched: most manifests name the one that
// the manifest before names.
type knownList struct {
	hash    remote.Hash
	objects []remote.Object
}

func newChecker(o Options) *checker {
	if o.Store == nil {
		o.Store = o.Catalog.Store()
	}
	c := &checker{
		Options: o, seed: maphash.MakeSeed(), whole: fs.DownloadMax, flight: semaphore.NewWeighted(inFlight),
		workers: semaphore.NewWeighted(int64(runtime.GOMAXPROCS(0))),
		states:  make(map[string]*state), lists: make(map[string]knownList), parts: make(map[string]bool),
	}
	c.Snapshots = slices.Clone(c.Snapshots)
	slices.SortFunc(c.Snapshots, func(a, b fs.Snapshot) int {
		return cmp.Or(cmp.Compare(a.Writer, b.Writer), cmp.Compare(a.Seq, b.Seq))
	})
	c.progress.AllSnapshots = len(c.Snapshots)
	return c
}

// Run checks snapshots. What is wrong with them is reported; an error is what
// kept it from going on.
func Run(ctx context.Context, o Options) (Result, error) {
	return newChecker(o).run(ctx)
}

func (c *checker) run(ctx context.Context) (Result, error) {
	if err := c.allBlobs(ctx); err != nil {
		return c.result, err
	}
	for _, s := range c.Snapshots {
		if err := c.snapshot(ctx, s); err != nil {
			return c.result, err
		}
		c.tell(func(p *Progress) { p.Snapshots++ })
	}
	return c.result, nil
}

// Damaged lists the files that need blobs of which somebody knows that they are
// lost, by key, without reading any blob. It loads the dumps of those snapshots
// only that need one. Finding.Healed means that the newest snapshot of a set
// has the content elsewhere; nobody has looked whether it is there.
func Damaged(ctx context.Context, o Options, blobs []string) (Result, error) {
	c := newChecker(o)
	c.lost = make(map[string]bool, len(blobs))
	for _, key := range blobs {
		c.lost[key] = true
		c.states[key] = &state{err: fs.ErrLost}
	}
	for _, s := range c.Snapshots {
		needs, err := c.needs(ctx, s)
		if err == nil && needs {
			err = c.snapshot(ctx, s)
		}
		if err != nil {
			return c.result, err
		}
		c.tell(func(p *Progress) { p.Snapshots++ })
	}
	return c.result, nil
}

// needs reports whether a snapshot may need a blob that is lost.
func (c *checker) needs(ctx context.Context, s fs.Snapshot) (bool, error) {
	named, err := c.named(ctx, s)
	if err != nil {
		return true, c.refuse(ctx, s, "", err)
	}
	for _, o := range named {
		if c.lost[remote.BlobKey(s.Writer, o.Seq, o.SHA256)] {
			return true, nil
		}
	}
	return false, nil
}

// named returns the blobs that a manifest says its snapshot needs.
func (c *checker) named(ctx context.Context, s fs.Snapshot) ([]remote.Object, error) {
	m, err := c.Catalog.Manifest(ctx, s)
	if err != nil {
		return nil, err
	}
	return m.Blobs.Resolve(func(ref remote.ListRef) ([]remote.Object, error) {
		if k := c.lists[s.Writer]; k.hash == ref.SHA256 {
			return k.objects, nil
		}
		objects, err := remote.FetchList(ctx, c.Store, s.Writer, ref)
		if err == nil {
			c.lists[s.Writer] = knownList{ref.SHA256, objects}
		}
		return objects, err
	})
}

// report tells of a finding.
func (c *checker) report(f Finding) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch r := &c.result; {
	case f.Kind == KindDump:
		r.BadDumps++
	case f.Kind == KindBlob:
		r.BadBlobs++
	case f.Healed:
		r.Healed++
	default:
		r.Damaged++
	}
	if c.Report != nil {
		c.Report(f)
	}
}

func (c *checker) tell(change func(*Progress)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.progress)
	if c.Progress != nil {
		c.Progress(c.progress)
	}
}

// refuse reports what is wrong with a snapshot's metadata, unless it ends the
// check.
func (c *checker) refuse(ctx context.Context, s fs.Snapshot, key string, err error) error {
	if fatal(ctx, err) {
		return err
	}
	c.report(Finding{Kind: KindDump, Snapshot: s, Key: key, Err: err})
	return nil
}

// fatal reports whether after an error nothing else could be checked either.
func fatal(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, remote.ErrNoStore) || errors.Is(err, remote.ErrDenied) || errors.Is(err, fs.ErrClosed)
}

func blobKey(writer string, b view.BlobInfo) string {
	return remote.BlobKey(writer, remote.Seq(b.Seq), b.Hash)
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, remote.ErrCorrupt)...)
}
