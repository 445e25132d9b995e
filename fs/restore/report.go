package restore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"syscall"

	"git.eeqj.de/sneak/vaultik/fs/restore/disk"
	"git.eeqj.de/sneak/vaultik/metastore/view"
)

// Problem is something that was not restored as the snapshot has it.
type Problem struct {
	Kind ProblemKind
	Path string // in the snapshot, from "/" on; for KindExtra below the target
	Err  error
}

// ProblemKind says what is wrong.
type ProblemKind string

// Kinds of problems.
const (
	KindNotCaptured ProblemKind = "not-captured" // the backup could not read it
	KindContent     ProblemKind = "content"      // its content is lost or damaged: it was not written
	KindTarget      ProblemKind = "target"       // the target did not take it
	KindMetadata    ProblemKind = "metadata"     // it is there, some of its metadata is not
	KindVerify      ProblemKind = "verify"       // what was read back is something else
	KindExtra       ProblemKind = "extra"        // it could not be deleted
)

func (r *run) problem(kind ProblemKind, path string, err error) {
	r.tally.problems.Add(1)
	if r.Report != nil {
		r.Report(Event{Problem: &Problem{kind, path, err}})
	}
}

// fail tells that a file could not be restored, once.
func (r *run) fail(kind ProblemKind, dir, slot uint64, err error) {
	if r.failed.Add(slot) {
		r.problem(kind, r.pathOf(dir, slot), err)
	}
}

// undescribed tells what of an entry's metadata could not be set.
func (r *run) undescribed(dir, slot uint64, err error) {
	if err != nil {
		r.problem(KindMetadata, r.pathOf(dir, slot), err)
	}
}

// told tells what is missing of the metadata of an entry that is there. Other
// errors are returned.
func (r *run) told(n *view.Node, err error) error {
	if err == nil {
		return nil
	}
	var lacks *disk.MetadataError
	if !errors.As(err, &lacks) {
		return err
	}
	r.undescribed(n.Parent, n.Cookie, lacks.Err)
	return nil
}

// at says which entry an error is about that ends it all.
func (r *run) at(dir, slot uint64, err error) error {
	return fmt.Errorf("%q: %w", r.pathOf(dir, slot), err)
}

// action tells what would be done.
func (r *run) action(kind string, f *folder, name string) {
	if r.DryRun && r.Report != nil {
		r.Report(Event{Action: &Action{kind, join(f.below, name)}})
	}
}

func (r *run) progress(phase string) {
	if r.Report == nil {
		return
	}
	p := Progress{Phase: phase}
	switch phase {
	case "plan":
		p.Entries = r.planned.entries() + r.tally.same.Load()
	case "verify":
		p.Entries, p.Total, p.Bytes = r.tally.verified.Load(), r.checks.Count(), r.tally.verifyRead.Load()
	default:
		p.Entries, p.Total = r.done.entries(), r.planned.entries()
		p.Bytes, p.TotalBytes = r.done.bytes.Load(), r.planned.bytes.Load()
	}
	r.Report(Event{Progress: &p})
}

func (r *run) restoring() { r.progress("restore") }

// stepwise yields records as well, and every so often reports progress and looks
// whether to go on.
func stepwise[T any](ctx context.Context, records iter.Seq2[*T, error], progress func()) iter.Seq2[*T, error] {
	const often = 1024
	return func(yield func(*T, error) bool) {
		n := 0
		for v, err := range records {
			if n++; n%often == 0 {
				progress()
				err = errors.Join(err, ctx.Err())
			}
			if !yield(v, err) {
				return
			}
		}
	}
}

// node returns an entry by its place.
func (r *run) node(ctx context.Context, dir, slot uint64) (*view.Node, error) {
	if slot == r.Tree.Root() {
		n, err := r.Tree.Node(ctx, slot)
		return &n, err
	}
	nodes, err := r.Tree.ReadDir(ctx, dir, slot-1, 1)
	if err == nil && len(nodes) == 0 {
		err = fmt.Errorf("the snapshot's directory %d has no entry %d: %w", dir, slot, view.ErrBad)
	}
	if err != nil {
		return nil, err
	}
	return &nodes[0], nil
}

// pathOf spells the path of an entry, as far as it can be found out.
func (r *run) pathOf(dir, slot uint64) string {
	ctx := context.Background() // a local question of microseconds
	n, err := r.node(ctx, dir, slot)
	if err != nil {
		return "…"
	}
	at := n.Name
	for deep := 0; n.Parent != 0 && deep < maxDepth; deep++ {
		up, err := r.Tree.Node(ctx, n.Parent)
		if err != nil {
			return "…/" + at
		}
		at, n = up.Name+"/"+at, &up
	}
	if at == "" {
		return "/"
	}
	return at
}

// maxDepth bounds the way up in a view that leads in a circle.
const maxDepth = 4096

// fatal reports whether an error of the target's concerns all that is still to
// be done.
func fatal(err error) bool {
	for _, e := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.ENOTCONN, syscall.ESTALE} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
