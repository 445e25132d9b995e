package fusefs

import (
	"cmp"
	"context"
	"fmt"
	iofs "io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"git.eeqj.de/sneak/vaultik/fs"
)

// layout is what a mounted store shows above the snapshots:
//
//	snapshots/<id>/              the snapshot's "/"
//	sets/<set>/<time>            link to ../../snapshots/<id>
//	sets/<set>/latest            link to the newest <time>
//	latest                       link to snapshots/<id>, the newest of all
//	writers/<writer>/…           the same for each writer, if there are several
//
// The sets hold links, because a directory has one place only in the kernel,
// and so has what it cached below. A writer that appears in a mount that began
// with one is found below writers/; nothing that was there moves.
type layout struct {
	catalog *fs.Catalog
	began   uint64 // the generation of the places of this mount

	mu       sync.RWMutex
	first    string            // the writer shown at the top; "" if all are below writers/
	decided  bool              // whether first is final
	ids      map[string]uint64 // by place path; numbers are never given twice
	places   map[uint64]*place // by inode number
	listings map[uint64][]*place
	numbers  map[string]uint64 // of snapshots in this mount, by manifest hash
	shown    []fs.Snapshot     // by number - 1; forgotten ones stay for who is inside
	loaded   map[uint64]bool   // by number
}

type placeKind int

const (
	folderPlace placeKind = iota
	linkPlace
	snapshotPlace
)

// place is one entry of the folders above the snapshots.
type place struct {
	id     uint64 // ascending in the order of appearance; the place in a listing
	ino    uint64
	name   string
	kind   placeKind
	target string // of a link
	time   time.Time

	generation uint64
}

func newLayout(c *fs.Catalog) *layout {
	return &layout{catalog: c, began: uint64(uint32(time.Now().UnixNano() >> 20)), ids: make(map[string]uint64), numbers: make(map[string]uint64), loaded: make(map[uint64]bool)}
}

func (l *layout) place(ino uint64) (*place, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	p, ok := l.places[ino]
	return p, ok
}

func (l *layout) children(dir uint64) []*place {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.listings[dir]
}

func (l *layout) child(dir uint64, name string) (*place, bool) {
	for _, p := range l.children(dir) {
		if p.name == name {
			return p, true
		}
	}
	return nil, false
}

// parent finds the folder that a place is in; the top is its own.
func (l *layout) parent(ino uint64) uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for dir, listing := range l.listings {
		for _, p := range listing {
			if p.ino == ino {
				return dir
			}
		}
	}
	return rootInode
}

// open opens the tree of a snapshot by its number in this mount.
func (l *layout) open(ctx context.Context, number uint64) (*fs.Tree, error) {
	l.mu.RLock()
	known := number > 0 && number <= uint64(len(l.shown))
	var s fs.Snapshot
	if known {
		s = l.shown[number-1]
	}
	loaded := l.loaded[number]
	l.mu.RUnlock()
	if !known {
		return nil, fmt.Errorf("snapshot number %d of this mount: %w", number, iofs.ErrNotExist)
	}
	t, err := l.catalog.OpenSnapshot(ctx, s)
	if err == nil && !loaded {
		l.mu.Lock()
		l.loaded[number] = true
		l.mu.Unlock()
	}
	return t, err
}

// entered reports whether a snapshot was opened before.
func (l *layout) entered(number uint64) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.loaded[number]
}

// totals adds up files and bytes of the snapshots shown.
func (l *layout) totals() (files, bytes int64) {
	for _, s := range l.catalog.Snapshots() {
		files += s.Manifest.Totals.Files
		bytes += s.Manifest.Totals.Bytes
	}
	return files, bytes
}

// change is a name that appeared, disappeared or means something else now.
type change struct {
	dir  uint64
	name string
}

// update builds the folders for the snapshots that the catalog knows now, and
// returns what the kernel has to be told.
func (l *layout) update() []change {
	snapshots := l.catalog.Snapshots()
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.listings
	l.places, l.listings = make(map[uint64]*place), make(map[uint64][]*place)

	byWriter := make(map[string][]fs.Snapshot)
	for _, s := range snapshots {
		byWriter[s.Writer] = append(byWriter[s.Writer], s)
	}
	if !l.decided && len(byWriter) > 0 {
		l.decided = true
		if len(byWriter) == 1 {
			l.first = snapshots[0].Writer
		}
	}
	l.places[rootInode] = &place{ino: rootInode, kind: folderPlace, time: newest(snapshots)}
	if l.decided {
		for writer, own := range byWriter {
			if writer == l.first {
				l.writer("", own)
			} else {
				l.writer(path.Join("writers", writer), own)
			}
		}
	}
	for _, listing := range l.listings {
		slices.SortFunc(listing, func(a, b *place) int { return cmp.Compare(a.id, b.id) })
	}
	return differences(old, l.listings)
}

// writer adds the folders of one writer's snapshots, which ascend by seq,
// below dir.
func (l *layout) writer(dir string, snapshots []fs.Snapshot) {
	sets := make(map[string]string) // newest name in a set
	taken := make(map[string]bool)
	for _, s := range snapshots {
		l.add(path.Join(dir, "snapshots", s.ID), snapshotPlace, "", s.Started, l.number(s))
		name := s.Started.UTC().Format("2006-01-02T15-04-05Z")
		for n := 2; taken[s.Set+"/"+name]; n++ { // two runs within a second
			name = fmt.Sprintf("%s-%d", s.Started.UTC().Format("2006-01-02T15-04-05Z"), n)
		}
		taken[s.Set+"/"+name] = true
		l.add(path.Join(dir, "sets", s.Set, name), linkPlace, path.Join("../../snapshots", s.ID), s.Started, 0)
		sets[s.Set] = name
	}
	for set, name := range sets {
		l.add(path.Join(dir, "sets", set, fs.Latest), linkPlace, name, newest(snapshots), 0)
	}
	last := snapshots[len(snapshots)-1]
	l.add(path.Join(dir, fs.Latest), linkPlace, path.Join("snapshots", last.ID), last.Started, 0)
}

// number gives a snapshot its number in this mount, for good.
func (l *layout) number(s fs.Snapshot) uint64 {
	n, ok := l.numbers[s.Hash.String()]
	if !ok {
		l.shown = append(l.shown, s)
		n = uint64(len(l.shown))
		l.numbers[s.Hash.String()] = n
	}
	return n
}

// add adds a place and the folders above it. A link that leads elsewhere now
// is another inode, because the kernel keeps the targets of links.
func (l *layout) add(at string, kind placeKind, target string, t time.Time, number uint64) {
	parent := uint64(rootInode)
	if dir := path.Dir(at); dir != "." {
		if _, ok := l.places[l.id(dir)]; !ok {
			l.add(dir, folderPlace, "", t, 0)
		}
		parent = l.id(dir)
	}
	id := l.id(strings.TrimSuffix(at+"\x00"+target, "\x00"))
	p := &place{id: id, ino: id, name: path.Base(at), kind: kind, target: target, time: t, generation: l.began}
	if kind == snapshotPlace {
		p.ino, p.generation = number<<inodeBits|rootInode, generation(path.Base(at))
	}
	l.places[p.ino] = p
	l.listings[parent] = append(l.listings[parent], p)
	if above := l.places[parent]; above.time.Before(t) {
		above.time = t
	}
}

func (l *layout) id(key string) uint64 {
	id, ok := l.ids[key]
	if !ok {
		id = rootInode + 1 + uint64(len(l.ids))
		l.ids[key] = id
	}
	return id
}

func newest(snapshots []fs.Snapshot) time.Time {
	var t time.Time
	for _, s := range snapshots {
		if s.Started.After(t) {
			t = s.Started
		}
	}
	if t.IsZero() {
		return time.Unix(0, 0)
	}
	return t
}

// differences compares two sets of listings.
func differences(old, now map[uint64][]*place) []change {
	var changes []change
	compare := func(a, b map[uint64][]*place) {
		for dir, listing := range a {
			there := make(map[string]uint64, len(b[dir]))
			for _, p := range b[dir] {
				there[p.name] = p.ino
			}
			for _, p := range listing {
				if there[p.name] != p.ino {
					changes = append(changes, change{dir, p.name})
				}
			}
		}
	}
	compare(old, now)
	compare(now, old)
	slices.SortFunc(changes, func(a, b change) int {
		return cmp.Or(cmp.Compare(a.dir, b.dir), cmp.Compare(a.name, b.name))
	})
	return slices.Compact(changes)
}
