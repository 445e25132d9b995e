package main

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// edits says what edit did to a tree.
type edits struct {
	appended, added, deleted int
	renamed                  int // files below the renamed folder
}

// edit does a day's work on a tree: a line is appended to 1 % of the files, 200
// files are added, 200 deleted, and one folder with about 1 % of the files is
// renamed. A tree of fewer than 2,000 files gets a tenth of its files added
// and deleted. Which files depends on the tree and on n only.
func edit(root string, n uint64) (edits, error) {
	var done edits
	files, folder, err := survey(root)
	if err != nil {
		return done, err
	}
	r := rand.New(seeded(100 + n))
	r.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
	share, some := (len(files)+99)/100, min(200, len(files)/10)
	for _, path := range files[:share] {
		if err := appendLine(path, fmt.Sprintf("/* a line of edit %d */\n", n)); err != nil {
			return done, err
		}
		done.appended++
	}
	for _, path := range files[share : share+some] {
		if err := os.Remove(path); err != nil {
			return done, err
		}
		done.deleted++
	}
	files = slices.Delete(files, share, share+some)
	words := vocabulary(r)
	for i, path := range files[share : share+some] {
		name := filepath.Join(filepath.Dir(path), fmt.Sprintf("added-%d-%d.txt", n, i))
		if err := os.WriteFile(name, prose(nil, r, words, 2000+r.IntN(20_000)), 0o644); err != nil {
			return done, err
		}
		files = append(files, name)
		done.added++
	}
	if folder == "" {
		return done, nil
	}
	for _, path := range files {
		if strings.HasPrefix(path, folder+"/") {
			done.renamed++
		}
	}
	return done, os.Rename(folder, folder+".renamed")
}

// survey lists the regular files below root in the order of their names, and
// finds the folder that has nearest to 1 % of them below it, "" if there are
// no folders.
func survey(root string) (files []string, folder string, err error) {
	below := map[string]int{}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files = append(files, path)
		for p := filepath.Dir(path); len(p) > len(root); p = filepath.Dir(p) {
			below[p]++
		}
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	best := 0
	for p, n := range below {
		far := max(n*100-len(files), len(files)-n*100)
		if folder == "" || far < best || far == best && p < folder {
			folder, best = p, far
		}
	}
	return files, folder, nil
}

func appendLine(path, line string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString(line); err != nil {
		return err
	}
	return f.Close()
}
