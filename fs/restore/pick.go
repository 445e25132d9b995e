package restore

import (
	"fmt"
	"strings"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/gitignore"
	"git.eeqj.de/sneak/vaultik/metastore/view"
)

// picker decides what of the snapshot is restored, and what of the target is
// none of a deletion's business.
type picker struct {
	include, exclude gitignore.List
	backup           gitignore.List // what the backup left out
	top              string         // what patterns are relative to; "": the set's paths
}

func newPicker(o *Options, p place) (picker, error) {
	var k picker
	snapshot := o.Tree.Snapshot()
	roots := snapshot.Roots
	if p.where != "/" {
		k.top, roots = p.where, []string{p.where}
	}
	for _, line := range o.Include {
		if err := k.include.Add(line, roots); err != nil {
			return k, fmt.Errorf("include %w", err)
		}
	}
	for _, line := range o.Exclude {
		if err := k.exclude.Add(line, roots); err != nil {
			return k, fmt.Errorf("exclude %w", err)
		}
	}
	for _, line := range snapshot.Excludes {
		// Written by another version, perhaps. What cannot be read cannot keep
		// anything from being deleted, so nothing is.
		if err := k.backup.Add(line, snapshot.Roots); err != nil && o.Delete {
			return k, fmt.Errorf("the backup's exclude %w; restore without --delete", err)
		}
	}
	return k, nil
}

// picks is what the picker says about the entries of one folder.
type picks struct {
	include, exclude, backup *gitignore.Folder
}

// in prepares for a folder: where it is in the snapshot, and the set's path
// that it is or is below, "" if it is above all of them.
func (k *picker) in(where, root string) picks {
	own := root
	if k.top != "" {
		own = k.top
	}
	v := picks{include: folderOf(&k.include, where, own), exclude: folderOf(&k.exclude, where, own)}
	v.backup = folderOf(&k.backup, where, root)
	return v
}

func folderOf(l *gitignore.List, where, root string) *gitignore.Folder {
	if l.Empty() {
		return nil
	}
	if root == "" {
		return l.Above(where)
	}
	return l.In(root, strings.Trim(strings.TrimPrefix(where, root), "/"))
}

// wants decides about an entry. inside says whether its folder is included.
// An entry that is not included may hold one that is.
func (v *picks) wants(n *view.Node, inside bool) (included, excluded bool) {
	dir := n.Type == metastore.Directory
	if v.exclude != nil {
		if matched, negated := v.exclude.Match(n.Name, dir); matched && !negated {
			return false, true
		}
	}
	if v.include != nil {
		if matched, negated := v.include.Match(n.Name, dir); matched {
			return !negated, false
		}
	}
	return inside, false
}

// spares reports whether an entry of the target that the snapshot does not have
// is to stay: the backup left such entries out, or the restore does.
func (v *picks) spares(name string, dir, inside bool) bool {
	if v.backup != nil {
		if matched, negated := v.backup.Match(name, dir); matched && !negated {
			return true
		}
	}
	included, excluded := v.wants(&view.Node{Name: name, File: metastore.File{Stat: metastore.Stat{Type: typeOf(dir)}}}, inside)
	return excluded || !included
}

func typeOf(dir bool) metastore.Type {
	if dir {
		return metastore.Directory
	}
	return metastore.Regular
}
