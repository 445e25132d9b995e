package main

import (
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/remote"
)

// release is the version of this program; builds of a tagged module carry
// their own.
const release = "0.1.0-dev"

// build is what the Go linker knows of how the program was made.
type build struct {
	Type      string            `json:"message_type"`
	Version   string            `json:"version"`
	Revision  string            `json:"revision"` // git commit, "+dirty" if it was changed; "" if unknown
	Go        string            `json:"go"`
	Platform  string            `json:"platform"`
	Format    int               `json:"format"` // of stores: what it writes and reads
	Libraries map[string]string `json:"libraries"`
}

// notable are the libraries on which the store's bytes depend.
var notable = []string{
	"filippo.io/age", "aead.dev/minisign", "github.com/klauspost/compress", "github.com/mattn/go-sqlite3",
	"github.com/hanwen/go-fuse/v2", "github.com/minio/minio-go/v7", "github.com/PlakarKorp/go-cdc-chunkers",
}

func buildInfo() build {
	b := build{
		Type: "version", Version: release, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		Format: remote.FormatVersion, Libraries: map[string]string{},
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; v != "" && v != "(devel)" && !strings.HasPrefix(v, "v0.0.0-") {
		b.Version = strings.TrimPrefix(v, "v")
	}
	dirty := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			b.Revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+dirty"
		}
	}
	if b.Revision != "" {
		b.Revision += dirty
	}
	for _, d := range info.Deps {
		for _, name := range notable {
			if d.Path == name {
				b.Libraries[name] = d.Version
			}
		}
	}
	return b
}

func (a *app) versionCommand() *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "print the versions of the program, the store's format and the libraries",
		OnUsageError: usageError,
		Action:       a.version,
	}
}

func (a *app) version(c *cli.Context) error {
	if err := words(c, 0, 0); err != nil {
		return err
	}
	b := buildInfo()
	a.ui.Result(b)
	revision := b.Revision
	if revision == "" {
		revision = "unknown"
	}
	a.ui.Print("vaultik %s", b.Version)
	a.ui.Print("revision  %s", revision)
	a.ui.Print("format    %d", b.Format)
	a.ui.Print("built by  %s for %s", b.Go, b.Platform)
	for _, name := range notable {
		if v := b.Libraries[name]; v != "" {
			a.ui.Print("library   %s %s", name, v)
		}
	}
	return nil
}
