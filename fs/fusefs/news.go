package fusefs

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/remote"
)

const (
	// The kernel repeats a failed read-ahead page by page, and a store that is
	// down fails for every blob that is asked for.
	quiet = 10 * time.Second
	// A blob stays lost or damaged. It may hold thousands of files.
	quietAboutBlob = 10 * time.Minute
	// maxTold bounds how many warnings are remembered.
	maxTold = 1000
)

// news passes on warnings that say something new.
type news struct {
	warn func(error)
	now  func() time.Time

	mu   sync.Mutex
	told map[string]time.Time // what it was about, and when it may be told again
}

func newNews(warn func(error)) *news {
	return &news{warn: warn, now: time.Now, told: make(map[string]time.Time)}
}

func (n *news) tell(err error) {
	about, pause := err.Error(), quiet
	if b := (*fs.BlobError)(nil); errors.As(err, &b) {
		about = "the store"
		if errors.Is(err, fs.ErrLost) || errors.Is(err, remote.ErrCorrupt) {
			about, pause = b.Key, quietAboutBlob
			err = fmt.Errorf("%w; other files in this blob may fail as well, which is not told for %v", err, pause)
		}
	}
	n.mu.Lock()
	now := n.now()
	old := now.Before(n.told[about])
	if !old {
		if len(n.told) >= maxTold {
			clear(n.told) // only costs some repetitions
		}
		n.told[about] = now.Add(pause)
	}
	n.mu.Unlock()
	if !old {
		n.warn(err)
	}
}
