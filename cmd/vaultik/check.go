package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"git.eeqj.de/sneak/vaultik/backup/exclude"
	"git.eeqj.de/sneak/vaultik/backup/localfs"
	"git.eeqj.de/sneak/vaultik/backup/source"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/remote"
)

// checkTags refuses what a manifest cannot hold.
func checkTags(tags []string) error {
	for _, tag := range tags {
		if err := remote.CheckTag(tag); err != nil {
			return fmt.Errorf("--tag: %w", err)
		}
	}
	if len(tags) > remote.MaxTags {
		return fmt.Errorf("--tag: there are %d tags, more than the %d that a snapshot may have", len(tags), remote.MaxTags)
	}
	return nil
}

// lost says what to do if one of the writer's files is not there.
func lost(what, writer string, err error) error {
	err = fmt.Errorf("%s of writer %q: %w", what, writer, err)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w; make it anew from the store: \"vaultik index rebuild --identity KIT\"; without the recovery kit, move the config away and start a new writer: "+
			"\"vaultik init --store URL --root KEY --recipient KEY PATH…\", all as that config has them", err)
	}
	return err
}

// leftOut says why a path to back up would be left out whatever the excludes
// are, "" if it would not. What cannot be examined is the backup's to tell.
func leftOut(ctx context.Context, disk *localfs.Source, always []string, path string) string {
	for _, folder := range always {
		if state.Inside(path, folder) {
			return fmt.Sprintf("it is the store, or vaultik's own folder, %q", folder)
		}
	}
	info, err := os.Lstat(path)
	if err != nil {
		return ""
	}
	dev := uint64(info.Sys().(*syscall.Stat_t).Dev)
	volume, err := disk.Volume(ctx, dev, path)
	if err != nil {
		return ""
	}
	m, err := exclude.Compile(exclude.Rules{}, []string{path})
	if err != nil || m.Boundary(path, source.Entry{Dev: dev}, volume, dev) != metastore.StateExcluded {
		return ""
	}
	return fmt.Sprintf("it is on a pseudo file system (%s)", volume.FSType)
}

// checkStore makes sure that this is the store that init set up: where its
// disk is not mounted lies a folder too, and a backup into that would be
// neither where it is looked for nor what the next one can build on.
func (w *writing) checkStore(ctx context.Context, store remote.Store) error {
	writer := w.conf.Writer.String()
	key := remote.SignerKey(writer, 1)
	_, err := store.Stat(ctx, key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %q is not the store that \"vaultik init\" set up for writer %q (it has no %s); is its disk mounted, and is the address right?",
			remote.ErrNoStore, w.url.String(), writer, key)
	case errors.Is(err, remote.ErrDenied):
		return nil // these credentials may only write
	}
	return err
}
