package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
)

// A corpus is something to back up.
type corpus struct {
	name string // "" for a tree whose size will be its name
	kind string // source, tiny, random or sparse
	// provide makes it in the new folder dir, or finds it, and returns where it is.
	provide func(ctx context.Context, dir string) (root string, err error)
}

// plan lists the corpora that the flags ask for.
func plan(o options) []corpus {
	var all []corpus
	switch {
	case o.source != "":
		all = append(all, corpus{"Source tree", "source", func(ctx context.Context, dir string) (string, error) {
			return copyTree(ctx, o.source, dir)
		}})
	case o.short:
		all = append(all, corpus{"Source tree: some files of Go's", "source", someOfGo})
	default:
		all = append(all, corpus{"Source tree: Linux, from Debian's " + o.sourcePackage, "source", func(ctx context.Context, dir string) (string, error) {
			return debianSource(ctx, o.sourcePackage, dir)
		}})
	}
	for _, tree := range o.tiny {
		all = append(all, corpus{"", "tiny", func(context.Context, string) (string, error) { return tree, nil }})
	}
	if len(o.tiny) == 0 {
		for _, n := range o.tinyFiles {
			all = append(all, corpus{humanize.Comma(int64(n)) + " tiny files", "tiny", func(ctx context.Context, dir string) (string, error) {
				return dir, tinyFiles(ctx, dir, n)
			}})
		}
	}
	all = append(all,
		corpus{humanize.IBytes(uint64(o.randomSize)) + " of incompressible data", "random", func(ctx context.Context, dir string) (string, error) {
			return dir, randomFile(ctx, filepath.Join(dir, "random"), o.randomSize, o.randomSize, 1)
		}},
		corpus{humanize.IBytes(uint64(o.sparseSize)) + " sparse file with " + humanize.IBytes(uint64(o.sparseData)) + " of data", "sparse",
			func(ctx context.Context, dir string) (string, error) {
				return dir, randomFile(ctx, filepath.Join(dir, "sparse"), o.sparseSize, o.sparseData, o.sparseData>>20)
			}},
	)
	return slices.DeleteFunc(all, func(c corpus) bool { return !slices.Contains(strings.Split(o.corpora, ","), c.kind) })
}

// seeded is a source of random numbers that is the same in every run, and
// another one for every n.
func seeded(n uint64) *rand.ChaCha8 {
	var seed [32]byte
	copy(seed[:], "vaultik compare")
	binary.LittleEndian.PutUint64(seed[24:], n)
	return rand.NewChaCha8(seed)
}

// randomFile writes pieces, evenly spread over a file of size bytes, with data
// bytes in all; between them are holes.
func randomFile(ctx context.Context, path string, size, data, pieces int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return err
	}
	r := seeded(1)
	for i := range pieces {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := f.Seek(i*(size/pieces), io.SeekStart); err != nil {
			return err
		}
		if _, err := io.CopyN(f, r, data/pieces); err != nil {
			return err
		}
	}
	return f.Close()
}

// perFolder is how many tiny files a folder holds.
const perFolder = 500

// tinyFiles makes n files of 30 to 500 bytes.
func tinyFiles(ctx context.Context, dir string, n int) error {
	r := rand.New(seeded(2))
	words := vocabulary(r)
	var folder string
	var text []byte
	for i := range n {
		if i%perFolder == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			folder = filepath.Join(dir, fmt.Sprintf("d%05d", i/perFolder))
			if err := os.Mkdir(folder, 0o755); err != nil {
				return err
			}
		}
		text = prose(text[:0], r, words, 30+r.IntN(471))
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("f%07d", i)), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// vocabulary makes words that compress about as text does when repeated.
func vocabulary(r *rand.Rand) []string {
	words := make([]string, 5000)
	for i := range words {
		words[i] = fmt.Sprintf("%x", r.Uint64N(1<<(8+4*r.UintN(8))))
	}
	return words
}

// prose appends n bytes of random words to text.
func prose(text []byte, r *rand.Rand, words []string, n int) []byte {
	for len(text) < n {
		text = append(append(text, words[r.IntN(len(words))]...), ' ')
	}
	text = text[:n]
	text[n-1] = '\n'
	return text
}

// extent counts what lies below a folder, the folder included.
type extent struct {
	entries int
	bytes   int64
}

// warm looks at every entry below root, so that the kernel knows it, and reads
// what is in the files unless that is mostly holes.
func warm(ctx context.Context, root string, read bool) (extent, error) {
	var x extent
	buf := make([]byte, 1<<20)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if x.entries++; x.entries%1000 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		x.bytes += info.Size()
		if !read {
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		// Wrapped, or the copy would go to the file's own WriteTo, and to
		// another buffer for each.
		_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, buf)
		return err
	})
	return x, err
}
