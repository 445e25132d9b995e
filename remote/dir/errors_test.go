package dir_test

import (
	"errors"
	"io/fs"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/remote"
)

// A message names the object, the store and the reason, each once.
func TestAFailedCallSaysWhatWhereAndWhy(t *testing.T) {
	folder := t.TempDir()
	s := create(t, folder)
	put(t, s, "ann/x", "x")
	if err := s.Put(t.Context(), "ann/x", nil); !errors.Is(err, remote.ErrExists) || err.Error() != `put "ann/x" in the folder `+folder+`: object exists already` {
		t.Error(err)
	}
	if _, err := s.Get(t.Context(), "ann/y", 0, -1); !errors.Is(err, fs.ErrNotExist) || err.Error() != `get "ann/y" in the folder `+folder+`: no such file or directory` {
		t.Error(err)
	}
	if _, err := s.Get(t.Context(), "ann/x", 0, 9); !errors.Is(err, remote.ErrCorrupt) || err.Error() != `get "ann/x" in the folder `+folder+`: it has 1 bytes, asked for 9 from 0 on: corrupt object` {
		t.Error(err)
	}
}

func TestAFullAReadOnlyAndAForbiddenFolderSayWhatToDo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small disk")
	}
	folder := t.TempDir()
	if err := unix.Mount("small", folder, "tmpfs", 0, "size=64k"); err != nil {
		t.Skip("mount a small disk:", err)
	}
	defer func() {
		if err := unix.Unmount(folder, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	s := create(t, folder)
	err := s.Put(t.Context(), "ann/big", make([]byte, 1<<20))
	if want := `put "ann/big" in the folder ` + folder + `: no space left on device; make room there`; !errors.Is(err, unix.ENOSPC) || err.Error() != want {
		t.Errorf("full: %v", err)
	}
	if err := unix.Mount("", folder, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	err = s.Put(t.Context(), "ann/x", []byte("x"))
	if want := `put "ann/x" in the folder ` + folder + `: not allowed by the store: read-only file system; mount it writable`; !errors.Is(err, remote.ErrDenied) || err.Error() != want {
		t.Errorf("read-only: %v", err)
	}
}
