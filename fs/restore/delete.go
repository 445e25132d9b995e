package restore

import (
	"context"
	"fmt"
	"path"

	"git.eeqj.de/sneak/vaultik/fs/restore/disk"
)

// delete removes what the plan says, what lies deeper first. It goes down to
// each by names that must be folders, and stays in the one where the next is.
func (r *run) delete(ctx context.Context) error {
	if r.extra.Count() == 0 {
		return nil
	}
	at := r.target.Remover()
	defer at.Close()
	return r.extra.Each(func(p string, dir bool) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		up, name := path.Split(p)
		if err := at.Enter(up); err != nil {
			r.problem(KindExtra, p, err)
			return nil
		}
		switch err := at.Remove(name, dir); {
		case fatal(err):
			return err
		case err != nil:
			r.problem(KindExtra, p, fmt.Errorf("delete: %w", err))
		case !disk.Litter(name):
			r.tally.deleted.Add(1)
		}
		return nil
	})
}
