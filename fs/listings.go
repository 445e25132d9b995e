package fs

import (
	"context"
	"crypto/sha256"
	"fmt"
	"iter"

	"git.eeqj.de/sneak/vaultik/remote"
)

// listingSum sums up the keys that decide which snapshots a writer has.
type listingSum [sha256.Size]byte

// listings is a store that sums up what it lists of a writer, so that what was
// listed to read it need not be listed once more. It is for one
// reader, which lists one thing after the other.
type listings struct {
	remote.Store
	writer string
	sums   map[string]listingSum // by prefix, of whole listings
}

func newListings(s remote.Store, writer string) *listings {
	return &listings{s, writer, make(map[string]listingSum)}
}

// Unwrap makes what the store offers beyond remote.Store known.
func (l *listings) Unwrap() remote.Store { return l.Store }

// List implements remote.Store.
func (l *listings) List(ctx context.Context, prefix string) iter.Seq2[remote.Info, error] {
	return func(yield func(remote.Info, error) bool) {
		h := sha256.New()
		for info, err := range l.Store.List(ctx, prefix) {
			fmt.Fprintf(h, "%q %d\n", info.Key, info.Size)
			if !yield(info, err) || err != nil {
				return
			}
		}
		l.sums[prefix] = listingSum(h.Sum(nil))
	}
}

// sum lists what has not been listed, and returns the sum of all.
func (l *listings) sum(ctx context.Context) (listingSum, error) {
	h := sha256.New()
	for _, prefix := range []string{remote.SignersPrefix(l.writer), remote.MetadataPrefix(l.writer), remote.ForgottenPrefix(l.writer)} {
		if _, listed := l.sums[prefix]; !listed {
			for _, err := range l.List(ctx, prefix) {
				if err != nil {
					return listingSum{}, err
				}
			}
		}
		sum := l.sums[prefix]
		h.Write(sum[:])
	}
	return listingSum(h.Sum(nil)), nil
}
