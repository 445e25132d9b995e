package restore

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/metastore"
)

// verdict is what is to become of an entry that the target has already.
type verdict int

const (
	toMake verdict = iota // it is replaced
	toFix                 // it is the same but for its metadata
	toSkip                // it is the same
	toKeep                // it is different and stays
)

// stat examines an entry of a target folder; there is false if it has none.
func (r *run) stat(ctx context.Context, f *folder, name string) (st *unix.Stat_t, there bool, err error) {
	if !f.there {
		return nil, false, nil
	}
	d, err := r.target.Get(ctx, f.node.Ino)
	if err != nil {
		return nil, false, err
	}
	defer r.target.Put(d)
	if st, there, err = d.Stat(name); err != nil {
		return nil, false, fmt.Errorf("examine what is there: %w", err)
	}
	return st, there, nil
}

// compare decides about an entry that the target has: st is what it has.
func (r *run) compare(ctx context.Context, f *folder, n *metastore.Node, st *unix.Stat_t) (verdict, error) {
	if r.Overwrite == Always {
		return toMake, nil
	}
	d, err := r.target.Get(ctx, f.node.Ino)
	if err != nil {
		return toKeep, err
	}
	defer r.target.Put(d)
	same, err := d.Same(n, st)
	switch {
	case err != nil:
		return toKeep, err
	case same && r.Overwrite != IfChanged:
		return toSkip, nil
	case same:
		described, err := d.Described(ctx, n, st)
		if err != nil || described {
			return toSkip, err
		}
		return toFix, nil
	case r.keeps(n, st):
		return toKeep, nil
	}
	return toMake, nil
}

// keeps reports whether something different is kept.
func (r *run) keeps(n *metastore.Node, st *unix.Stat_t) bool {
	return r.Overwrite == Never || r.Overwrite == IfNewer && !newer(n, st)
}

func newer(n *metastore.Node, st *unix.Stat_t) bool {
	return n.MTime.Sec > st.Mtim.Sec || n.MTime.Sec == st.Mtim.Sec && int64(n.MTime.Nsec) > st.Mtim.Nsec
}
