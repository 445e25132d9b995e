package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"git.eeqj.de/sneak/vaultik/remote"
)

// place is an object among those of a writer.
type place struct {
	kind remote.Kind
	name remote.Name
}

func (p place) key(writer string) string {
	return remote.Key{Writer: writer, Kind: p.kind, Seq: p.name.Seq, Hash: p.name.SHA256}.String()
}

// object is one that a manifest names.
type object struct {
	place
	size   int64
	writer string
}

// needs is what the retained manifests of a writer name.
//
// Snapshots share lists: each says its blobs as a difference to one that many
// others name as well. So a list is fetched once, for all of them, and let go.
type needs struct {
	writer string
	state  *remote.WriterState
	chosen []remote.Verified // the snapshots that count
	pins   bool              // what the newest pins counts as well
	sizes  map[place]int64
	kept   map[place]bool // what older snapshots pinned; nobody deletes it, and nobody needs it
	flaws  []Finding      // lists that cannot be had, manifests that contradict them
}

// gather collects what the snapshots of a writer name: those with a seq in
// only, or all of them if it is nil, and then also what the newest pins.
func gather(ctx context.Context, s remote.Store, state *remote.WriterState, only []remote.Seq) (*needs, error) {
	n := &needs{writer: state.Writer, state: state, chosen: state.Snapshots, pins: only == nil, sizes: make(map[place]int64), kept: make(map[place]bool)}
	if only != nil {
		n.chosen = nil
		for _, v := range state.Snapshots {
			if slices.Contains(only, v.Manifest.Seq) {
				n.chosen = append(n.chosen, v)
			}
		}
	}
	for _, v := range n.chosen {
		for _, d := range v.Manifest.Dumps {
			n.add(remote.KindDump, d.Object)
		}
		for _, d := range v.Manifest.PinnedDumps {
			n.kept[place{remote.KindDump, d.Name()}] = true
		}
		if l := v.Manifest.Pins.List; l != nil {
			n.kept[place{remote.KindList, l.Name()}] = true
		}
	}
	if m := n.newest(); m != nil && n.pins {
		for _, d := range m.PinnedDumps {
			n.add(remote.KindDump, d)
		}
	}
	return n, n.gatherBlobs(ctx, s)
}

// newest returns the writer's newest manifest, which is never forgotten.
func (n *needs) newest() *remote.Manifest {
	if len(n.state.Snapshots) == 0 {
		return nil
	}
	return n.state.Snapshots[len(n.state.Snapshots)-1].Manifest
}

// user is who names a list.
type user struct {
	snapshot int32 // index in state.Snapshots; -1: the newest one's pins
	set      *remote.ObjectList
}

// users groups what snapshots say of blobs by the list that they say it with.
func (n *needs) users(snapshots []remote.Verified, pins bool) map[remote.ListRef][]user {
	by := make(map[remote.ListRef][]user)
	put := func(u user) {
		var ref remote.ListRef // zero: none
		if u.set.List != nil {
			ref = *u.set.List
		}
		by[ref] = append(by[ref], u)
	}
	for _, v := range snapshots {
		i, _ := slices.BinarySearchFunc(n.state.Snapshots, v.Manifest.Seq, func(w remote.Verified, seq remote.Seq) int {
			return cmp.Compare(w.Manifest.Seq, seq)
		})
		put(user{int32(i), &v.Manifest.Blobs})
	}
	if m := n.newest(); m != nil && pins {
		put(user{-1, &m.Pins})
	}
	return by
}

// listMemory bounds what lists that are fetched side by side take, in bytes of
// their text.
const listMemory = remote.MaxList

// eachList fetches every list that is named, and calls f with it and all that
// name it, one call at a time. The zero reference has no objects. What is
// wrong with a list goes to bad, if that is not nil.
func (n *needs) eachList(ctx context.Context, s remote.Store, by map[remote.ListRef][]user,
	f func(ref remote.ListRef, list []remote.Object, users []user), bad func(remote.ListRef, []user, error)) error {
	memory := semaphore.NewWeighted(listMemory)
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(reads)
	for ref, users := range by {
		g.Go(func() error {
			var list []remote.Object
			var err error
			if ref != (remote.ListRef{}) {
				size := min(max(ref.PlainSize, 0)+max(ref.Size, 0), listMemory)
				if err := memory.Acquire(ctx, size); err != nil {
					return err
				}
				defer memory.Release(size)
				list, err = remote.FetchList(ctx, s, n.writer, ref)
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				f(ref, list, users)
			case !says(err):
				return err
			case bad != nil:
				bad(ref, users, err)
			}
			return nil
		})
	}
	return g.Wait()
}

func (n *needs) gatherBlobs(ctx context.Context, s remote.Store) error {
	return n.eachList(ctx, s, n.users(n.chosen, n.pins), func(ref remote.ListRef, list []remote.Object, users []user) {
		if ref != (remote.ListRef{}) {
			n.add(remote.KindList, ref.Object)
		}
		dropped := make([]int, len(list)) // by how many
		var before []remote.Object
		for _, u := range users {
			for _, d := range u.set.Drop {
				if i, ok := find(list, d); ok {
					dropped[i]++
				} else {
					n.contradicts(u, "drops what is not in its list: blob %s of run %d", d.SHA256, d.Seq)
				}
			}
			for _, o := range u.set.Add {
				if _, ok := find(list, o.Name()); ok {
					n.contradicts(u, "adds what is in its list: blob %s of run %d", o.SHA256, o.Seq)
				}
			}
			for o := range remote.Added(before, u.set.Add) {
				n.add(remote.KindBlob, o)
			}
			before = u.set.Add
		}
		for i, o := range list {
			if dropped[i] < len(users) {
				n.add(remote.KindBlob, o)
			}
		}
	}, func(ref remote.ListRef, users []user, err error) {
		n.add(remote.KindList, ref.Object)
		kind := Corrupt
		if errors.Is(err, fs.ErrNotExist) {
			kind, err = Missing, errMissing
		}
		n.flaws = append(n.flaws, about(kind, n.writer, place{remote.KindList, ref.Name()}, "%w; which blobs the snapshots that name it need cannot be told", err))
		for _, u := range users {
			for _, o := range u.set.Add {
				n.add(remote.KindBlob, o)
			}
		}
	})
}

func find(list []remote.Object, name remote.Name) (int, bool) {
	return slices.BinarySearchFunc(list, name, func(o remote.Object, n remote.Name) int { return remote.CompareNames(o.Name(), n) })
}

// contradicts reports a signed manifest that makes no sense.
func (n *needs) contradicts(u user, format string, args ...any) {
	i := u.snapshot
	if i < 0 {
		i = int32(len(n.state.Snapshots) - 1)
	}
	n.flaws = append(n.flaws, Finding{
		Kind: Corrupt, Writer: n.writer, Key: remote.ManifestKey(n.writer, n.state.Snapshots[i].Manifest.Seq),
		Err: fmt.Errorf("%w: it "+format, append([]any{remote.ErrCorrupt}, args...)...),
	})
}

// add notes an object. Two manifests that give it two sizes cannot both be
// right; the bytes decide, for its name is their hash.
func (n *needs) add(kind remote.Kind, o remote.Object) {
	p := place{kind, o.Name()}
	size, known := n.sizes[p]
	switch {
	case known && size == o.Size:
		return
	case known:
		n.flaws = append(n.flaws, about(Corrupt, n.writer, p, "%w: manifests give it both %d and %d bytes", remote.ErrCorrupt, size, o.Size))
	}
	n.sizes[p] = o.Size
}
