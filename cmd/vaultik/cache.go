package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/config"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/stores"
	"git.eeqj.de/sneak/vaultik/fs/diskcache"
)

// contentFolder is where in the cache folder fetched contents are.
const contentFolder = "blobs"

// cacheFlags are the options about the cache folder.
func cacheFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "cache-dir", Usage: "`FOLDER` of the cache (VAULTIK_CACHE_DIR)"},
		&cli.StringFlag{Name: "cache-size", Usage: "keep fetched contents, encrypted, up to `SIZE`, such as 10GiB (default: the config's cache_size, else " +
			humanize.IBytes(diskcache.DefaultSize) + ", and nothing of a store in a folder)"},
		&cli.BoolFlag{Name: "no-cache", Usage: "keep nothing on this machine's disk when the command has ended"},
	}
}

// chooseCache decides where the cache is and how much fetched content it may
// hold. The store is known.
func (r *reading) chooseCache(c *cli.Context) error {
	folder, text := c.String("cache-dir"), c.String("cache-size")
	if c.Bool("no-cache") {
		if folder != "" || text != "" {
			return errors.New("--no-cache goes neither with --cache-dir nor with --cache-size")
		}
		r.where.Cache = ""
		return nil
	}
	if folder != "" {
		path, err := filepath.Abs(folder)
		if err != nil {
			return fmt.Errorf("--cache-dir: %w", err)
		}
		r.where.Cache = path
	}
	switch {
	case text != "":
		size, err := config.ParseSize(text)
		if err != nil {
			return fmt.Errorf("--cache-size: %w", err)
		}
		r.cacheSize = int64(size)
	case r.conf != nil && r.conf.CacheSize > 0:
		r.cacheSize = int64(r.conf.CacheSize)
	case r.url.Folder() == "" && r.where.Cache != "":
		// A store in a folder would only be copied to another disk, or to
		// another place on its own.
		r.cacheSize = diskcache.DefaultSize
	}
	return nil
}

// needCache makes a folder for this once where nothing is to last, or there is
// no place for it: the machine on which somebody restores may have nothing set
// up.
func (r *reading) needCache() (err error) {
	if r.where.Cache == "" {
		r.temp, err = os.MkdirTemp("", "vaultik-")
		r.where.Cache = r.temp
	}
	return err
}

// cachedStore is a store with a cache in front, closed together.
type cachedStore struct {
	*diskcache.Cache
	store stores.Store
}

func (s cachedStore) Close() error { return errors.Join(s.Cache.Close(), s.store.Close()) }

// cached puts the cache in front of the store.
func (a *app) cached(r *reading) stores.Store {
	if r.cacheSize == 0 {
		return r.store
	}
	to := a.ui // the app's own may be another one when it has something to say
	return cachedStore{diskcache.New(r.store, diskcache.Options{
		Folder: filepath.Join(r.where.Cache, contentFolder), Size: r.cacheSize, Now: a.now,
		Warn: func(err error) { to.Warn("%v", err) },
	}), r.store}
}
