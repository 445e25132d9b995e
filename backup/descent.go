package backup

import "context"

// descent goes from folder to folder by their names from "/" down, and keeps
// those open that the next one lies below, too.
type descent struct {
	source Source
	dirs   []Dir // "/" first
	names  []string
}

// to opens a folder, which stays the descent's.
func (d *descent) to(ctx context.Context, names []string) (Dir, error) {
	if len(d.dirs) == 0 {
		_, root, err := d.source.Root(ctx)
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
func (d *descent) leave(n int) {
	for len(d.dirs) > n {
		d.dirs[len(d.dirs)-1].Close()
		d.dirs = d.dirs[:len(d.dirs)-1]
	}
	d.names = d.names[:max(0, len(d.dirs)-1)]
}

func (d *descent) close() { d.leave(0) }
