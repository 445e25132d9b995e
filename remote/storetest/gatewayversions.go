package storetest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// meta is the folder of what the server knows about buckets and objects: a
// file for each property.
func (g *Gateway) meta() string { return filepath.Join(filepath.Dir(filepath.Dir(g.Folder)), "meta") }

// makeLocking gives the bucket the properties that the server gives to one
// which is made with object lock.
func (g *Gateway) makeLocking() error {
	properties := filepath.Join(g.meta(), g.Bucket, "meta")
	for _, folder := range []string{g.versions, properties} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
	}
	return errors.Join(
		os.WriteFile(filepath.Join(properties, "versioning"), []byte{1}, 0o600),
		os.WriteFile(filepath.Join(properties, "bucket-lock"), []byte(`{"Enabled":true}`), 0o600))
}

// ExpireLocks ends the locks of all objects, as if their time had come.
func (g *Gateway) ExpireLocks(t testing.TB) {
	t.Helper()
	err := filepath.WalkDir(g.meta(), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "object-retention" {
			err = os.Remove(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// SettleTimes gives every version the time at which it was made. By itself this
// server shows a version with the time at which it was covered, and a delete
// marker with that of what it covers.
func (g *Gateway) SettleTimes(t testing.TB) {
	t.Helper()
	settle := func(path, id string) error {
		made, ok := versionTime(id)
		if !ok {
			return nil
		}
		return os.Chtimes(path, made, made)
	}
	err := filepath.WalkDir(g.versions, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		return settle(path, d.Name())
	})
	if err == nil {
		err = filepath.WalkDir(g.Folder, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			key, err := filepath.Rel(g.Folder, path)
			if err != nil {
				return err
			}
			id, err := os.ReadFile(filepath.Join(g.meta(), g.Bucket, key, "meta", "version-id"))
			if err != nil {
				return err
			}
			return settle(path, string(id))
		})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// versionTime reads the time, to the millisecond, in a version's id: the first
// ten of its characters in Crockford's base 32.
func versionTime(id string) (time.Time, bool) {
	const digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	var ms int64
	for i := range 10 {
		if len(id) != 26 || !strings.Contains(digits, id[i:i+1]) {
			return time.Time{}, false
		}
		ms = ms<<5 | int64(strings.IndexByte(digits, id[i]))
	}
	return time.UnixMilli(ms), true
}
