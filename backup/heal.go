package backup

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"git.eeqj.de/sneak/vaultik/backup/scan"
	"git.eeqj.de/sneak/vaultik/backup/source"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/index"
	"git.eeqj.de/sneak/vaultik/remote"
)

// healRounds bounds how often sources are read again for blobs that the store
// turned out not to have.
const healRounds = 2

// heal compares the blobs that the index counts on with a LIST of the store.
// The chunks of a missing one are read from their sources again; files of
// which that is not possible any more are shown as unreadable.
func (w *writer) heal(ctx context.Context) error {
	for round := 0; ; round++ {
		if err := w.findLost(ctx); err != nil {
			return err
		}
		missing, err := w.run.Missing(ctx)
		if err != nil {
			return fmt.Errorf("look for missing chunks in the index: %w", err)
		}
		if len(missing) == 0 {
			return nil
		}
		if round == healRounds {
			return w.giveUp(ctx, missing)
		}
		w.problem(Notice, "", fmt.Errorf("%d files have content that the store has lost; reading them again", len(missing)))
		err = w.pipeline(ctx, func(ctx context.Context, out *queue) error {
			s := w.scanner(out)
			at := source.NewDescent(w.Source)
			defer at.Close()
			for _, m := range missing {
				if err := w.reread(ctx, s, at, m); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}

// findLost lists the store's blobs and tells the index which are not there.
func (w *writer) findLost(ctx context.Context) error {
	blobs, err := w.run.Blobs(ctx)
	if err != nil {
		return fmt.Errorf("read the index: %w", err)
	}
	want := make(map[string]int64, len(blobs))
	for _, b := range blobs {
		want[w.blobKey(b)] = b.Size
	}
	for info, err := range w.Store.List(ctx, remote.BlobsPrefix(w.Writer)) {
		if errors.Is(err, remote.ErrDenied) {
			w.unverified("list its objects")
			return nil
		}
		if err != nil {
			return fmt.Errorf("list the writer's blobs: %w", err)
		}
		if size, ok := want[info.Key]; ok && size == info.Size {
			delete(want, info.Key)
		}
	}
	for _, b := range blobs {
		key := w.blobKey(b)
		if _, missing := want[key]; !missing {
			continue
		}
		if b.Seq == w.run.Seq() {
			// Put a moment ago: a listing may lag behind.
			there, err := w.exists(ctx, key, b.Size)
			if err != nil {
				return fmt.Errorf("look at blob %s: %w", key, err)
			}
			if there {
				continue
			}
		}
		if err := w.run.LoseBlob(ctx, b.Seq, b.Hash); err != nil {
			return err
		}
		w.problem(Notice, "", fmt.Errorf("blob %s is not in the store as it was uploaded (missing, or another size)", key))
	}
	return nil
}

func (w *writer) blobKey(b metastore.BlobRef) string {
	return remote.BlobKey(w.Writer, remote.Seq(b.Seq), b.Hash)
}

// reread sends a file through the pipeline once more.
func (w *writer) reread(ctx context.Context, s *scan.Scanner, at *source.Descent, m index.MissingFile) error {
	if len(m.Components) == 0 {
		return nil // "/" has no content
	}
	folders, name := m.Components[:len(m.Components)-1], m.Components[len(m.Components)-1]
	dir, err := at.To(ctx, folders)
	if err != nil {
		return ctx.Err() // gone: giveUp reports the file
	}
	e, err := dir.Entry(ctx, name)
	if err != nil || e.Err != nil || e.Type != metastore.Regular {
		return ctx.Err()
	}
	return s.Reread(ctx, dir, "/"+strings.Join(m.Components, "/"), e, m)
}

// giveUp shows files whose content is lost as unreadable.
func (w *writer) giveUp(ctx context.Context, missing []index.MissingFile) error {
	for _, m := range missing {
		where := "/" + strings.Join(m.Components, "/")
		w.problem(Lost, where, errors.New("its stored content is no longer in the store, and it could not be read again"))
		f := m.File
		f.Content, f.State = 0, metastore.StateUnreadable
		if err := w.run.Gap(ctx, m.Path, f, int(syscall.EIO)); err != nil {
			return err
		}
	}
	return nil
}
