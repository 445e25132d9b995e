package integration

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// oneFile is a machine that backs up a folder with one file in it, which is
// empty still and open for writing.
func oneFile(t *testing.T) (*machine, *os.File) {
	t.Helper()
	m := newMachine(t, "file://"+filepath.Join(t.TempDir(), "store"))
	src := filepath.Join(m.dir, "source")
	must(t, os.Mkdir(src, 0o755))
	f, err := os.Create(filepath.Join(src, "file"))
	must(t, err)
	t.Cleanup(func() { f.Close() })
	m.init(src)
	return m, f
}

// A file of 100 GiB that is nearly all hole costs what its 64 MiB of data do,
// and has the same holes in the mount and in a copy.
func TestASparseFileOfAHundredGiB(t *testing.T) {
	const size, piece, pieces = 100 << 30, 1 << 20, 64
	m, f := oneFile(t)
	must(t, f.Truncate(size))
	rng := rand.NewChaCha8([32]byte{100})
	data := make([]byte, piece)
	for i := range int64(pieces) {
		rng.Read(data)
		_, err := f.WriteAt(data, i*(size/pieces)+i*12<<10) // at the borders of pages, but of nothing else
		must(t, err)
	}
	must(t, f.Sync())
	settle()
	s := m.measured()
	if s.Read != pieces*piece || s.Stored > pieces*piece*11/10 {
		t.Errorf("%d bytes were read and %d stored, want %d of data", s.Read, s.Stored, pieces*piece)
	}
	mnt := filepath.Join(m.mount(s.Snapshot), f.Name())
	sameData(t, f.Name(), mnt)
	var st unix.Stat_t
	must(t, unix.Stat(mnt, &st))
	if st.Size != size || st.Blocks*512 < pieces*piece || st.Blocks*512 > pieces*piece*11/10 {
		t.Errorf("the mount shows %d bytes in %d blocks", st.Size, st.Blocks)
	}
	to := filepath.Join(m.dir, "copy.img")
	tool(t, "cp", "-a", mnt, to)
	sameData(t, f.Name(), to)
}

// sameData compares the data of two sparse files, and where it lies. The holes
// would take minutes to read.
func sameData(t *testing.T, want, got string) {
	t.Helper()
	a, err := os.Open(want)
	must(t, err)
	defer a.Close()
	b, err := os.Open(got)
	must(t, err)
	defer b.Close()
	there, err := dataRanges(a)
	must(t, err)
	if here, err := dataRanges(b); err != nil || here != there {
		t.Fatalf("%s has data at %s (%v), want %s", got, here, err, there)
	}
	for r := range strings.FieldsSeq(there) {
		var from, to int64
		_, err := fmt.Sscanf(r, "%d-%d", &from, &to)
		must(t, err)
		x, y := make([]byte, to-from), make([]byte, to-from)
		_, err = a.ReadAt(x, from)
		must(t, err)
		if _, err := b.ReadAt(y, from); err != nil || !bytes.Equal(x, y) {
			t.Fatalf("%s differs within %s: %v", got, r, err)
		}
	}
}

// A file of 20 GiB takes no more memory than a small one, and an edit at its
// end no more room than the edit.
func TestAFileOfTwentyGiB(t *testing.T) {
	const piece = 1 << 20
	n := scale(320, 20<<10) // pieces
	m, f := oneFile(t)
	// The beginning is noise, which fills all that the backup may hold. Each
	// piece after it repeats a little noise of its own, so that none passes for
	// another and the store stays small.
	rng := rand.NewChaCha8([32]byte{20})
	for i := range n {
		noise := make([]byte, piece)
		if i >= 128 {
			noise = noise[:piece/1024]
		}
		rng.Read(noise)
		_, err := f.Write(bytes.Repeat(noise, piece/len(noise)))
		must(t, err)
	}
	settle()
	if first := m.measured(); first.Read != int64(n)*piece {
		t.Errorf("%d bytes were read, want %d", first.Read, n*piece)
	}
	_, err := f.WriteAt([]byte("edited"), int64(n)*piece-100)
	must(t, err)
	settle()
	edited := m.measured()
	if edited.Stored > 8<<20 {
		t.Errorf("an edit of six bytes took %d", edited.Stored)
	}
	tool(t, "cmp", f.Name(), filepath.Join(m.mount(edited.Snapshot), f.Name()))
}
