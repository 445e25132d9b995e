package backup

import (
	"context"
	"sync/atomic"

	"git.eeqj.de/sneak/vaultik/backup/source"
)

const (
	// aheadFolders is how many folders are listed before scan comes to them,
	// next to each other: with a disk's or a server's latency it is what the
	// walk takes its time for, and a listing is most of scan's work otherwise.
	aheadFolders = 8
	// aheadEntries bounds the entries that wait in such listings, all in all.
	aheadEntries = 32 << 10
)

// contents is what was found in a folder before scan came to it.
type contents struct {
	names   []string
	entries []source.Entry // of all names, nil if they are more than a page
	err     error          // of listing them
}

// early is a folder on its way to being opened and listed.
type early struct {
	done chan struct{}
	dir  source.Dir
	contents
	failed  error // of opening it
	taken   bool
	waiting *atomic.Int64 // the scanner's count of entries
}

// take waits for the folder, which is the caller's then. Without one it returns
// nothing at all.
func (e *early) take() (source.Dir, *contents, error) {
	if e == nil {
		return nil, nil, nil
	}
	<-e.done
	e.taken = true
	e.waiting.Add(-int64(len(e.names)))
	if e.failed != nil {
		return nil, nil, e.failed
	}
	// The parent keeps e until it is done with; what was listed may be large.
	listed := e.contents
	e.contents = contents{}
	return e.dir, &listed, nil
}

// aheadOf lists the subfolders of one folder early, in their order.
type aheadOf struct {
	*scanner
	in      source.Dir
	folders []subfolder
	begun   []*early
	given   int
}

func (s *scanner) lookAhead(f folder, l *listing) *aheadOf {
	a := &aheadOf{scanner: s, in: f.dir}
	if l.children != nil {
		a.folders = l.folders
	}
	return a
}

// next begins some more listings and gives out the next one, nil if there is none.
func (a *aheadOf) next(ctx context.Context) *early {
	for len(a.begun) < min(len(a.folders), a.given+aheadFolders) && a.waiting.Load() < aheadEntries {
		a.begun = append(a.begun, a.begin(ctx, a.folders[len(a.begun)].child.entry))
	}
	a.given++
	if a.given > len(a.begun) {
		// Not begun while there was no room: whoever asks does it now.
		if a.given <= len(a.folders) {
			a.begun = append(a.begun, nil)
		}
		return nil
	}
	return a.begun[a.given-1]
}

func (a *aheadOf) begin(ctx context.Context, entry source.Entry) *early {
	e := &early{done: make(chan struct{}), waiting: &a.waiting}
	a.listers.Go(func() error {
		defer close(e.done)
		if e.dir, e.failed = a.in.OpenDir(ctx, entry); e.failed != nil {
			return nil // whoever takes it is told
		}
		if e.names, e.err = e.dir.Names(ctx); e.err == nil && len(e.names) <= pageNames {
			e.entries, e.err = e.dir.Entries(ctx, e.names)
		}
		e.waiting.Add(int64(len(e.names)))
		return nil
	})
	return e
}

// drop lets go of listings that nobody took.
func (a *aheadOf) drop() {
	for _, e := range a.begun {
		if e == nil || e.taken {
			continue
		}
		if dir, _, err := e.take(); err == nil {
			dir.Close()
		}
	}
}
