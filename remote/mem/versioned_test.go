package mem_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/mem"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

func TestVersionedKeepsTheContract(t *testing.T) {
	storetest.Run(t, func(*testing.T) remote.Store { return mem.NewVersioned(nil) })
}

func TestVersionedKeepsVersionsAndLocks(t *testing.T) {
	storetest.RunVersioned(t, func(*testing.T) storetest.LockingStore {
		var ahead atomic.Int64 // the store's clock of ours
		s := mem.NewVersioned(func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
		return storetest.LockingStore{
			Store:     s,
			Overwrite: func(_ context.Context, key string, body []byte) error { s.Overwrite(key, body); return nil },
			Expire:    func() { ahead.Add(int64(100 * time.Hour)) },
		}
	})
}
