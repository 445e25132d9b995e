package state

import (
	"path/filepath"
	"strings"
)

// Inside reports whether path is folder or below it, wherever links lead.
func Inside(path, folder string) bool {
	path, folder = Resolve(path), Resolve(folder)
	return path == folder || strings.HasPrefix(path, strings.TrimSuffix(folder, "/")+"/")
}

// Resolve follows the links in an absolute path as far as it exists.
func Resolve(path string) string {
	path = filepath.Clean(path)
	resolved, err := filepath.EvalSymlinks(path)
	if up := filepath.Dir(path); err != nil && up != path {
		return filepath.Join(Resolve(up), filepath.Base(path))
	}
	if err != nil {
		return path
	}
	return resolved
}
