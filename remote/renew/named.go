package renew

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"git.eeqj.de/sneak/vaultik/remote"
)

// anySize is that of an object whose size no manifest tells.
const anySize = -1

// named is what retained manifests need, by key, with its size.
type named struct {
	store  remote.Store
	writer string
	sizes  map[string]int64
	uses   map[remote.ListRef][]remote.ObjectList
	flaws  []error
}

// collect returns what the retained manifests of a writer refer to, and what
// the newest pins. What a list contributes is all of it but for what each of
// its uses drops, so that a list is fetched once. One that cannot be had is a
// flaw: everything else is renewed all the same.
func collect(ctx context.Context, s remote.Store, w *remote.WriterState) (*named, error) {
	n := &named{store: s, writer: w.Writer, sizes: make(map[string]int64), uses: make(map[remote.ListRef][]remote.ObjectList)}
	for i, v := range w.Snapshots {
		m := v.Manifest
		n.sizes[remote.ManifestKey(w.Writer, m.Seq)] = v.Size
		for _, d := range m.Dumps {
			n.sizes[remote.DumpKey(w.Writer, d.Seq, d.SHA256)] = d.Size
		}
		n.use(m.Blobs)
		if i+1 < len(w.Snapshots) {
			continue
		}
		n.use(m.Pins)
		for _, d := range m.PinnedDumps {
			n.sizes[remote.DumpKey(w.Writer, d.Seq, d.SHA256)] = d.Size
		}
	}
	for ref, uses := range n.uses {
		if err := n.list(ctx, ref, uses); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func (n *named) use(l remote.ObjectList) {
	n.blobs(l.Add)
	if l.List != nil {
		n.sizes[remote.ListKey(n.writer, l.List.Seq, l.List.SHA256)] = l.List.Size
		n.uses[*l.List] = append(n.uses[*l.List], l)
	}
}

func (n *named) blobs(objects []remote.Object) {
	for _, o := range objects {
		n.sizes[remote.BlobKey(n.writer, o.Seq, o.SHA256)] = o.Size
	}
}

func (n *named) list(ctx context.Context, ref remote.ListRef, uses []remote.ObjectList) error {
	objects, err := remote.FetchList(ctx, n.store, n.writer, ref)
	if errors.Is(err, remote.ErrCorrupt) || errors.Is(err, remote.ErrUnsupported) || errors.Is(err, fs.ErrNotExist) {
		n.flaws = append(n.flaws, fmt.Errorf("the blobs that this list names are not renewed: %w", err))
		return nil
	}
	if err != nil {
		return err
	}
	dropped := make(map[remote.Name]int)
	for _, use := range uses {
		for _, name := range use.Drop {
			dropped[name]++
		}
	}
	for _, o := range objects {
		if dropped[o.Name()] < len(uses) {
			n.blobs([]remote.Object{o})
		}
	}
	return nil
}

// size reports whether the object at key is to stay locked, and its size.
// Besides what is named these are all objects that are neither blobs nor
// metadata of a run, and all signatures: signers and what the root key says of
// them, tombstones, and the signature that keeps a forgotten run's number
// taken.
func (n *named) size(key string) (int64, bool) {
	if size, ok := n.sizes[key]; ok {
		return size, true
	}
	k, err := remote.ParseKey(key)
	if err != nil {
		return 0, false
	}
	switch k.Kind {
	case remote.KindBlob, remote.KindDump, remote.KindList:
		return 0, false
	case remote.KindManifest:
		return anySize, k.Signature
	}
	return anySize, true
}
