package storetest_test

import (
	"context"
	"io"
	"io/fs"
	"iter"
	"os"
	"os/exec"
	"strings"
	"testing"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/mem"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

// brokenStores break the contract in one way each; story is the one that
// must notice.
var brokenStores = []struct {
	name, story string
	open        func() remote.Store
}{
	{"overwrites", "nothing_is_ever_overwritten", func() remote.Store { return overwriting{mem.New(nil)} }},
	{"two winners", "one_of_many_creators_wins", func() remote.Store { return overwriting{mem.New(nil)} }},
	{"short ranges", "ranges_are_exact_or_refused", func() remote.Store { return clamping{mem.New(nil)} }},
	{"one page", "a_listing_turns_its_pages", func() remote.Store { return onePage{mem.New(nil)} }},
	{"flipped bit", "an_object_comes_back_as_it_was_put", func() remote.Store {
		return storetest.NewFaulty(mem.New(nil), storetest.Fault{Op: storetest.OpGet, Kind: storetest.Flip, At: 7, Every: true})
	}},
	{"truncated body", "a_big_object_goes_in_one_piece", func() remote.Store {
		return storetest.NewFaulty(mem.New(nil), storetest.Fault{Op: storetest.OpGet, Kind: storetest.Truncate, At: 1 << 20, Every: true})
	}},
	{"stale list", "a_listing_is_in_byte_order_and_by_prefix", func() remote.Store {
		return storetest.NewFaulty(mem.New(nil), storetest.Fault{Kind: storetest.StaleList, Every: true})
	}},
	{"delete fails", "absent_keys", func() remote.Store {
		return storetest.NewFaulty(mem.New(nil), storetest.Fault{Op: storetest.OpDelete, Kind: storetest.Fail, Err: fs.ErrNotExist, Every: true})
	}},
	{"deaf to contexts", "a_cancelled_context_ends_every_call", func() remote.Store { return deaf{mem.New(nil)} }},
	{"partial objects", "a_reader_sees_the_whole_object_or_none", func() remote.Store { return piecemeal{mem.New(nil)} }},
}

// TestBroken is run by runBroken in a process of its own.
func TestBroken(t *testing.T) {
	name := os.Getenv("VAULTIK_TEST_BROKEN")
	for _, c := range brokenStores {
		if c.name == name {
			storetest.Run(t, func(*testing.T) remote.Store { return c.open() })
		}
	}
}

// TestTwoWinnersAreFineWhereTheyAreAllowed runs only the race; the store
// would fail the other stories.
func TestTwoWinnersAreFineWhereTheyAreAllowed(t *testing.T) {
	if os.Getenv("VAULTIK_TEST_BROKEN") == "allowed" {
		storetest.Run(t, func(*testing.T) remote.Store { return overwriting{mem.New(nil)} }, storetest.RacyCreate)
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$/^one_of_many_creators_wins$", "-test.v")
	cmd.Env = append(os.Environ(), "VAULTIK_TEST_BROKEN=allowed")
	output, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(output), "--- PASS: "+t.Name()+"/one_of") {
		t.Errorf("%v\n%s", err, output)
	}
}

// runBroken tells one story of a broken store, and returns what it says.
func runBroken(t *testing.T, name, story string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestBroken$/^"+story+"$", "-test.v")
	cmd.Env = append(os.Environ(), "VAULTIK_TEST_BROKEN="+name)
	output, err := cmd.CombinedOutput()
	if err == nil {
		t.Error("the story was told to its end")
	}
	return string(output)
}

type overwriting struct{ remote.Store }

func (s overwriting) Put(ctx context.Context, key string, body []byte) error {
	if err := s.Delete(ctx, key); err != nil {
		return err
	}
	return s.Store.Put(ctx, key, body)
}

type clamping struct{ remote.Store }

func (s clamping) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	info, err := s.Stat(ctx, key)
	if err != nil {
		return nil, err
	}
	off = min(max(off, 0), info.Size)
	return s.Store.Get(ctx, key, off, min(n, info.Size-off))
}

type onePage struct{ remote.Store }

func (s onePage) List(ctx context.Context, prefix string) iter.Seq2[remote.Info, error] {
	return func(yield func(remote.Info, error) bool) {
		n := 0
		for info, err := range s.Store.List(ctx, prefix) {
			if n++; n > 1000 || !yield(info, err) {
				return
			}
		}
	}
}

type deaf struct{ remote.Store }

func (s deaf) Put(ctx context.Context, key string, body []byte) error {
	return s.Store.Put(context.WithoutCancel(ctx), key, body)
}

// piecemeal shows an object while it is being put.
type piecemeal struct{ remote.Store }

func (s piecemeal) Put(ctx context.Context, key string, body []byte) error {
	for i := range 8 {
		if err := s.Store.Put(ctx, key, body[:i*len(body)/8]); err != nil {
			return err
		}
		if _, err := storetest.Read(ctx, s, key, 0, -1); err != nil {
			return err
		}
		if err := s.Delete(ctx, key); err != nil {
			return err
		}
	}
	return s.Store.Put(ctx, key, body)
}
