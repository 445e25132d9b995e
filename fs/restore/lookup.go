package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/metastore/view"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/blob"
)

// file is a regular file that is to be written.
type file struct {
	entry
	content int64
	size    int64
}

// usesAtOnce is how many uses are handed to the plan at a time.
const usesAtOnce = 1024

// send looks up where the content of the files lies that were found so far, at
// the side of the walk.
func (p *planner) send(ctx context.Context) {
	files := p.files
	p.files = nil
	if len(files) > 0 {
		p.lookup.Go(func() error { return p.run.lookUp(ctx, files) })
	}
}

// lookUp adds the uses of the files to the plan. A file that is one hole, or of
// which something is lost, is no use.
func (r *run) lookUp(ctx context.Context, files []file) error {
	slices.SortFunc(files, func(a, b file) int { return int(a.content - b.content) })
	l := lookup{run: r, uses: make([]use, 0, usesAtOnce)}
	var contents []int64
	for _, f := range files {
		if n := len(contents); n == 0 || contents[n-1] != f.content {
			contents = append(contents, f.content)
		}
	}
	rest := files
	err := r.Tree.Pieces(ctx, contents, func(p view.Piece) error {
		if l.content != p.Content {
			if err := l.end(); err != nil {
				return err
			}
			if rest = l.begin(p.Content, rest); len(l.files) == 0 {
				return fmt.Errorf("a content that nobody asked for: %w", view.ErrBad)
			}
		}
		return l.piece(&p)
	})
	if err == nil {
		err = l.end()
	}
	if err == nil {
		l.begin(0, rest) // those without a single piece
		err = r.uses.Add(l.uses...)
	}
	for _, b := range l.bad { // now that the view is free: spelling paths asks it
		r.fail(KindContent, b.dir, b.slot, b.err)
	}
	return err
}

// lookup goes through the pieces of contents.
type lookup struct {
	*run
	content int64
	files   []file // that have this content
	at      int64  // how far its pieces tile it
	data    int64  // bytes that are in chunks
	pieces  int    // of those
	last    use    // the last one of them in the order of blobs, for each file alike
	err     error  // why it cannot be restored
	uses    []use
	bad     []badFile
}

type badFile struct {
	entry
	err error
}

// begin takes the files with a content from the front of files.
func (l *lookup) begin(content int64, files []file) (rest []file) {
	n := 0
	for n < len(files) && files[n].content != content {
		l.bad = append(l.bad, badFile{files[n].entry, errNoPieces})
		n++
	}
	start := n
	for n < len(files) && files[n].content == content {
		n++
	}
	l.content, l.files = content, files[start:n]
	l.at, l.data, l.pieces, l.err = 0, 0, 0, nil
	return files[n:]
}

var errNoPieces = fmt.Errorf("its content list is missing: %w", remote.ErrCorrupt)

func (l *lookup) piece(p *view.Piece) error {
	switch {
	case l.err != nil:
		return nil
	case p.Offset != l.at || p.Length < 1:
		l.err = fmt.Errorf("its content list goes on at byte %d instead of %d: %w", p.Offset, l.at, remote.ErrCorrupt)
		return nil
	case p.Lost:
		l.err = fmt.Errorf("bytes %d to %d, chunk %s: %w", p.Offset, p.Offset+p.Length, remote.Hash(p.Chunk), fs.ErrLost)
		return nil
	}
	l.at += p.Length
	if p.Hole {
		return nil
	}
	if p.Length > remote.MaxChunk || p.FrameLength > int64(blob.Bound(remote.MaxChunk)) {
		l.err = fmt.Errorf("a chunk of %d bytes in a frame of %d: %w", p.Length, p.FrameLength, remote.ErrCorrupt)
		return nil
	}
	u := use{
		blob: p.BlobID, frame: p.FrameOffset, start: p.FrameStart,
		packed: uint32(p.FrameLength), length: uint32(p.Length), chunk: p.Chunk, offset: p.Offset,
	}
	l.data += p.Length
	l.pieces++
	if l.pieces == 1 {
		l.last = u
		return nil
	}
	if u.compare(&l.last) > 0 {
		u, l.last = l.last, u
	}
	return l.use(u)
}

// end adds what was held back: the use that ends each file.
func (l *lookup) end() error {
	for _, f := range l.files {
		if l.err == nil && l.at != f.size {
			l.err = fmt.Errorf("its content list ends at byte %d of %d: %w", l.at, f.size, remote.ErrCorrupt)
		}
		if l.err != nil {
			l.bad = append(l.bad, badFile{f.entry, l.err})
			continue
		}
		l.planned.bytes.Add(l.data)
		if l.pieces == 0 {
			if err := l.others.Add(f.entry); err != nil {
				return err
			}
		}
	}
	if l.err != nil || l.pieces == 0 {
		l.files = nil
		return nil
	}
	u := l.last
	u.last, u.only = true, l.pieces == 1
	err := l.use(u)
	l.files = nil
	return err
}

func (l *lookup) use(u use) error {
	for _, f := range l.files {
		u.dir, u.slot = f.dir, f.slot
		l.uses = append(l.uses, u)
	}
	if len(l.uses) < usesAtOnce {
		return nil
	}
	err := l.run.uses.Add(l.uses...)
	l.uses = l.uses[:0]
	return err
}

// need is a blob that content comes from.
type need struct {
	id     int64
	bytes  int64 // that will be fetched of it
	frames int
	// at once: all of it, or what lies together in one place; else it is nil
	// and the frames are fetched as they come.
	at *blob.Span
}

// all is the place of a whole blob.
var all = &blob.Span{}

// need finds out which blobs are fetched, and how much of each. Below half of
// one, only parts are.
func (r *run) need(ctx context.Context) error {
	var n need
	frame, from, to, apart := int64(-1), int64(0), int64(0), false
	end := func() error {
		if n.frames == 0 {
			return nil
		}
		b, err := r.Tree.Blob(ctx, n.id)
		if err != nil {
			return err
		}
		switch {
		case n.bytes >= b.Size/2 && b.Size <= fs.DownloadMax:
			n.at, n.bytes = all, b.Size
		case !apart && n.bytes <= partsAtOnce:
			n.at = &blob.Span{Offset: from, Length: to - from}
		}
		r.needs = append(r.needs, n)
		return nil
	}
	for u, err := range r.uses.All() {
		if err != nil {
			return err
		}
		if u.blob != n.id {
			if err := errors.Join(end(), ctx.Err()); err != nil {
				return err
			}
			n, frame, from, to, apart = need{id: u.blob}, -1, u.frame, u.frame, false
		}
		if u.frame == frame {
			continue
		}
		if gap := u.frame - to; gap > fs.DownloadGap {
			apart = true
		} else if gap > 0 {
			n.bytes += gap
		}
		n.bytes += int64(u.packed)
		n.frames++
		frame, to = u.frame, u.frame+int64(u.packed)
	}
	return end()
}
