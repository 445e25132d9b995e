package prune

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"git.eeqj.de/sneak/vaultik/remote"
)

// What is known of a name.
const (
	needed  uint8 = 1 << iota // a retained snapshot cannot be read without it
	pinned                    // a later run may refer to it
	present                   // it was listed
)

// keep is everything that must stay of one writer.
type keep struct{ blobs, dumps, lists map[remote.Name]uint8 }

func (k *keep) of(kind remote.Kind) map[remote.Name]uint8 {
	switch kind {
	case remote.KindBlob:
		return k.blobs
	case remote.KindDump:
		return k.dumps
	case remote.KindList:
		return k.lists
	}
	panic("internal error: nothing of the kind " + string(kind) + " is kept by name")
}

// use is a set of blobs that a manifest tells as the difference to a list.
type use struct {
	run remote.Seq
	set *remote.ObjectList
	why uint8
}

// named collects what the retained manifests refer to and the newest pins. A
// list is fetched once, however many manifests share it, and no manifest's set
// is ever spelled out: what a list contributes is all of it but for what each
// of its uses drops. A list that cannot be had is a *remote.Problem.
func named(ctx context.Context, s remote.Store, w *remote.WriterState) (*keep, error) {
	k := &keep{make(map[remote.Name]uint8), make(map[remote.Name]uint8), make(map[remote.Name]uint8)}
	uses := make(map[remote.ListRef][]use)
	for i, v := range w.Snapshots {
		m := v.Manifest
		for _, d := range m.Dumps {
			k.dumps[d.Name()] |= needed
		}
		for _, d := range m.PinnedDumps {
			k.dumps[d.Name()] |= pinned
		}
		k.use(uses, use{m.Seq, &m.Blobs, needed})
		if l := m.Pins.List; l != nil {
			k.lists[l.Name()] |= needed
		}
		if i == len(w.Snapshots)-1 {
			k.use(uses, use{m.Seq, &m.Pins, pinned})
		}
	}
	return k, k.resolve(ctx, s, w.Writer, uses)
}

func (k *keep) use(uses map[remote.ListRef][]use, u use) {
	var before []remote.Object // what the last use of the same list added
	if l := u.set.List; l != nil {
		k.lists[l.Name()] |= needed
		if same := uses[*l]; len(same) > 0 && same[len(same)-1].why == u.why {
			before = same[len(same)-1].set.Add
		}
		uses[*l] = append(uses[*l], u)
	}
	for o := range remote.Added(before, u.set.Add) {
		k.blobs[o.Name()] |= u.why
	}
}

// listBytes bounds the text of the lists that are held at a time; one may be
// larger.
const listBytes = 32 << 20

// resolve adds what the lists contribute.
func (k *keep) resolve(ctx context.Context, s remote.Store, writer string, uses map[remote.ListRef][]use) error {
	type part struct {
		needed, pinned []remote.Name
	}
	parts := make(chan part)
	memory := semaphore.NewWeighted(listBytes)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(4, 2*runtime.GOMAXPROCS(0))) // waiting for the store takes longer than decoding
	done := make(chan error, 1)
	go func() {
		for ref, users := range uses {
			size := min(ref.PlainSize, listBytes)
			if memory.Acquire(gctx, size) != nil {
				break // the group has failed
			}
			g.Go(func() error {
				defer memory.Release(size)
				objects, err := fetch(gctx, s, writer, ref, users)
				if err != nil {
					return err
				}
				var p part
				if p.needed, err = contributed(writer, objects, users, needed); err != nil {
					return err
				}
				if p.pinned, err = contributed(writer, objects, users, pinned); err != nil {
					return err
				}
				select {
				case parts <- p:
					return nil
				case <-gctx.Done():
					return gctx.Err()
				}
			})
		}
		done <- g.Wait()
		close(parts)
	}()
	for p := range parts {
		for _, n := range p.needed {
			k.blobs[n] |= needed
		}
		for _, n := range p.pinned {
			k.blobs[n] |= pinned
		}
	}
	err := <-done
	if err == nil {
		err = ctx.Err()
	}
	return err
}

// fetch gets a list. What is wrong with it, and not with the way to the store,
// is a *remote.Problem that says what to do.
func fetch(ctx context.Context, s remote.Store, writer string, ref remote.ListRef, users []use) ([]remote.Object, error) {
	objects, err := remote.FetchList(ctx, s, writer, ref)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = remote.ErrMissing
	case errors.Is(err, remote.ErrCorrupt), errors.Is(err, remote.ErrUnsupported):
	default:
		return objects, err
	}
	return nil, &remote.Problem{Key: remote.ListKey(writer, ref.Seq, ref.SHA256), Stops: true, Err: fmt.Errorf(
		"%w; without this list nobody knows which blobs %s needs: bring it back from a copy of the store, or back up once more and forget what needs it with \"vaultik snapshot purge\"",
		err, runs(users))}
}

// runs says who uses a list.
func runs(users []use) string {
	first, last := users[0].run, users[0].run
	for _, u := range users {
		first, last = min(first, u.run), max(last, u.run)
	}
	if first == last {
		return "run " + first.String()
	}
	return fmt.Sprintf("any of the runs %d to %d that names it", first, last)
}

// contributed returns what of a list is in at least one of the sets that are
// used for this reason, and checks the differences against the list.
func contributed(writer string, list []remote.Object, users []use, why uint8) ([]remote.Name, error) {
	dropped := make([]int, len(list)) // by how many
	n := 0
	find := func(name remote.Name) (int, bool) {
		return slices.BinarySearchFunc(list, name, func(o remote.Object, n remote.Name) int { return remote.CompareNames(o.Name(), n) })
	}
	for _, u := range users {
		if u.why != why {
			continue
		}
		n++
		refuse := func(what string, name remote.Name) error {
			return &remote.Problem{Key: remote.ManifestKey(writer, u.run), Stops: true, Err: fmt.Errorf(
				"%w: it %s blob list %s blob %s of run %d; the program that wrote it is at fault, and nobody can tell what the snapshot needs",
				remote.ErrCorrupt, what, u.set.List.SHA256, name.SHA256, name.Seq)}
		}
		for _, name := range u.set.Drop {
			i, ok := find(name)
			if !ok {
				return nil, refuse("drops what is not in", name)
			}
			dropped[i]++
		}
		for _, o := range u.set.Add {
			if _, ok := find(o.Name()); ok {
				return nil, refuse("adds what is already in", o.Name())
			}
		}
	}
	if n == 0 {
		return nil, nil
	}
	names := make([]remote.Name, 0, len(list))
	for i, o := range list {
		if dropped[i] < n {
			names = append(names, o.Name())
		}
	}
	return names, nil
}
