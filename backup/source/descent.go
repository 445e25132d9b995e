package source

import "context"

// Descent goes from folder to folder by their names from "/" down, and keeps
// those open that the next one lies below, too.
type Descent struct {
	fs    FS
	dirs  []Dir // "/" first
	names []string
}

// NewDescent begins at "/", which it opens when it is first needed.
func NewDescent(fs FS) *Descent { return &Descent{fs: fs} }

// To opens a folder, which stays the descent's.
func (d *Descent) To(ctx context.Context, names []string) (Dir, error) {
	if len(d.dirs) == 0 {
		_, root, err := d.fs.Root(ctx)
		if err != nil {
			return nil, err
		}
		d.dirs = append(d.dirs, root)
	}
	shared := 0
	for shared < len(d.names) && shared < len(names) && d.names[shared] == names[shared] {
		shared++
	}
	d.leave(1 + shared)
	for _, name := range names[shared:] {
		dir := d.dirs[len(d.dirs)-1]
		e, err := dir.Entry(ctx, name)
		if err != nil {
			return nil, err
		}
		next, err := dir.OpenDir(ctx, e)
		if err != nil {
			return nil, err
		}
		d.dirs, d.names = append(d.dirs, next), append(d.names, name)
	}
	return d.dirs[len(d.dirs)-1], nil
}

// leave closes all but the first n folders.
func (d *Descent) leave(n int) {
	for len(d.dirs) > n {
		d.dirs[len(d.dirs)-1].Close()
		d.dirs = d.dirs[:len(d.dirs)-1]
	}
	d.names = d.names[:max(0, len(d.dirs)-1)]
}

// Close closes all that it holds open.
func (d *Descent) Close() { d.leave(0) }
