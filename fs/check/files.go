package check

import (
	"cmp"
	"context"
	"slices"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/metastore/view"
)

// content is one of which something is damaged.
type content struct {
	id     int64
	bytes  int64    // that are not where they should be
	healed bool     // all of them are elsewhere
	first  *damaged // to blame; rather one that is not healed
}

// files tells which files of a snapshot have damaged chunks.
func (c *checker) files(ctx context.Context, s fs.Snapshot, t *fs.Tree, bad []damaged) error {
	contents, err := contentsOf(ctx, t, bad)
	if err != nil || len(contents) == 0 {
		return err
	}
	p := paths{tree: t}
	for after := uint64(0); ; {
		nodes, err := t.After(ctx, after, 512)
		if err != nil || len(nodes) == 0 {
			return err
		}
		for i := range nodes {
			n := &nodes[i]
			after = n.Cookie
			at, found := slices.BinarySearchFunc(contents, n.Content, func(a content, id int64) int { return cmp.Compare(a.id, id) })
			if n.Content == 0 || !found {
				continue
			}
			path, err := p.of(ctx, n)
			if err != nil {
				return err
			}
			f := Finding{Kind: KindFile, Snapshot: s, Path: path, Bytes: contents[at].bytes, Healed: contents[at].healed}
			f.Key, f.Err = contents[at].first.reason()
			c.report(f)
		}
	}
}

// contentsOf returns the contents that have damaged chunks, by id.
func contentsOf(ctx context.Context, t *fs.Tree, bad []damaged) (contents []content, err error) {
	err = t.ContentPieces(ctx, func(p view.ContentPiece) error {
		if p.Chunk == 0 {
			return nil
		}
		at, found := slices.BinarySearchFunc(bad, p.Chunk, func(d damaged, id int64) int { return cmp.Compare(d.id, id) })
		if !found {
			return nil
		}
		d := &bad[at]
		if n := len(contents); n == 0 || contents[n-1].id != p.Content {
			contents = append(contents, content{id: p.Content, healed: true, first: d})
		}
		last := &contents[len(contents)-1]
		last.bytes += p.Length
		if last.healed && !d.healed {
			last.healed, last.first = false, d
		}
		return nil
	})
	return contents, err
}

// maxDepth bounds the way up in a view that leads in a circle.
const maxDepth = 4096

// paths spells the paths of entries, of which those of a directory come one
// after the other.
type paths struct {
	tree *fs.Tree
	dir  uint64 // inode number
	path string // of dir, with a slash at the end
}

func (p *paths) of(ctx context.Context, n *view.Node) (string, error) {
	if n.Parent == 0 {
		return "/", nil
	}
	if p.dir != n.Parent {
		path := "/"
		for at, deep := n.Parent, 0; at != p.tree.Root() && deep < maxDepth; deep++ {
			up, err := p.tree.Node(ctx, at)
			if err != nil {
				return "", err
			}
			path, at = "/"+up.Name+path, up.Parent
		}
		p.dir, p.path = n.Parent, path
	}
	return p.path + n.Name, nil
}
