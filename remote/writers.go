package remote

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// FolderLister is what a Store may offer beyond the interface: the names
// directly below a prefix without a listing of everything in them.
type FolderLister interface {
	// Folders yields, without the final "/", what follows prefix up to the
	// next "/" in at least one key. prefix is "" or ends in "/".
	Folders(ctx context.Context, prefix string) ([]string, error)
}

// ListWriters returns the names of the writers in a store, sorted. A folder is
// a writer's if its name may be one and it holds one of a writer's folders;
// anything else may lie beside them, or be the whole of it if this is no
// store. In a store that is no FolderLister this takes a listing of all
// objects.
func ListWriters(ctx context.Context, s Store) ([]string, error) {
	if f, ok := offered[FolderLister](s); ok {
		return listFolders(ctx, f)
	}
	found := make(map[string]bool)
	for info, err := range s.List(ctx, "") {
		if err != nil {
			return nil, fmt.Errorf("list the writers: %w", err)
		}
		if parts := strings.SplitN(info.Key, "/", 3); len(parts) == 3 && CheckName(parts[0]) == nil && isPart(parts[1]) {
			found[parts[0]] = true
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}

func listFolders(ctx context.Context, f FolderLister) ([]string, error) {
	names, err := f.Folders(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("list the writers: %w", err)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return CheckName(name) != nil })
	slices.Sort(names)
	is := make([]bool, len(names))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(fetches)
	for i, name := range names {
		g.Go(func() error {
			parts, err := f.Folders(ctx, WriterPrefix(name))
			is[i] = slices.ContainsFunc(parts, isPart)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("list the writers: %w", err)
	}
	var writers []string
	for i, name := range names {
		if is[i] {
			writers = append(writers, name)
		}
	}
	return writers, nil
}

// isPart reports whether a writer's folder holds a folder of such a name.
func isPart(name string) bool {
	return name == signers || name == blobs || name == metadata || name == forgotten
}

// WritersToRead returns the names of the writers that a reader has to look at,
// sorted: those in the store, and those that it showed before, to the caller
// or as seen remembers (nil: nothing is remembered), so that one which
// vanished is noticed. A store that has lost every one of them is an
// ErrNoStore: this is what a disk that is not mounted looks like.
func WritersToRead(ctx context.Context, s Store, seen *Seen, store string, before ...string) ([]string, error) {
	names, err := ListWriters(ctx, s)
	if err != nil {
		return nil, err
	}
	if seen != nil {
		before = append(before, seen.Writers(store)...)
	}
	slices.Sort(before)
	before = slices.Compact(before)
	if len(names) == 0 && len(before) > 0 {
		return nil, fmt.Errorf("%w: there is no writer in %q now, though it showed %q here before; is its disk mounted?", ErrNoStore, store, before)
	}
	names = append(names, before...)
	slices.Sort(names)
	return slices.Compact(names), nil
}
