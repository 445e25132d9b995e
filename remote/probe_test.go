package remote_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/mem"
)

// flawed is a store in memory with a flaw.
type flawed struct {
	*mem.Store
	overwrites, noGet, noStat, noList, noDelete, noSum bool
}

func (s *flawed) Put(ctx context.Context, key string, body []byte) error {
	err := s.Store.Put(ctx, key, body)
	if s.overwrites && errors.Is(err, remote.ErrExists) {
		return nil
	}
	return err
}

func (s *flawed) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if s.noGet {
		return nil, remote.ErrDenied
	}
	return s.Store.Get(ctx, key, off, n)
}

func (s *flawed) Stat(ctx context.Context, key string) (remote.Info, error) {
	if s.noStat {
		return remote.Info{}, remote.ErrDenied
	}
	info, err := s.Store.Stat(ctx, key)
	if s.noSum {
		info.SHA256 = remote.Hash{}
	}
	return info, err
}

func (s *flawed) List(ctx context.Context, prefix string) iter.Seq2[remote.Info, error] {
	if s.noList {
		return func(yield func(remote.Info, error) bool) { yield(remote.Info{}, remote.ErrDenied) }
	}
	return s.Store.List(ctx, prefix)
}

func (s *flawed) Delete(ctx context.Context, key string) error {
	if s.noDelete {
		return remote.ErrDenied
	}
	return s.Store.Delete(ctx, key)
}

// careless is a store that takes damaged uploads, or refuses them.
type careless struct {
	*mem.Store
	answer error
}

func (s careless) PutWithSum(context.Context, string, []byte, remote.Hash) error { return s.answer }

// forgetful is a store that checks sums and does not keep them.
type forgetful struct{ *flawed }

func (forgetful) PutWithSum(context.Context, string, []byte, remote.Hash) error {
	return remote.ErrCorrupt
}

func TestWhatAProbeFinds(t *testing.T) {
	good := remote.Capabilities{
		CanRead: true, CanStat: true, CanList: true, CanDelete: true, HasSum: true,
		WriteOnce: true, Rounds: 10, RefusesDamage: remote.Unknown,
	}
	for name, c := range map[string]struct {
		store  remote.Store
		change func(*remote.Capabilities)
		warns  []string // words of each warning
	}{
		"nothing wrong": {&flawed{Store: mem.New(nil)}, func(*remote.Capabilities) {}, nil},
		"overwrites": {&flawed{Store: mem.New(nil), overwrites: true}, func(c *remote.Capabilities) { c.WriteOnce, c.DoubleWins = false, 10 },
			[]string{"If-None-Match", "10 of 10 rounds"}},
		"no sums": {&flawed{Store: mem.New(nil), noSum: true}, func(c *remote.Capabilities) { c.HasSum = false }, nil},
		"takes sums and forgets them": {forgetful{&flawed{Store: mem.New(nil), noSum: true}},
			func(c *remote.Capabilities) { c.HasSum, c.RefusesDamage = false, remote.Yes }, []string{"SHA-256"}},
		"append only": {&flawed{Store: mem.New(nil), noGet: true, noStat: true, noList: true, noDelete: true},
			func(c *remote.Capabilities) {
				c.CanRead, c.CanStat, c.CanList, c.CanDelete, c.HasSum = false, false, false, false, false
			},
			[]string{"read back", "listed", "deleted"}},
		"takes damaged uploads":   {careless{mem.New(nil), nil}, func(c *remote.Capabilities) { c.RefusesDamage = remote.No }, []string{"damaged"}},
		"refuses damaged uploads": {careless{mem.New(nil), remote.ErrCorrupt}, func(c *remote.Capabilities) { c.RefusesDamage = remote.Yes }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			got, err := remote.Probe(t.Context(), c.store, bytes.NewReader([]byte("12345678")))
			want := good
			c.change(&want)
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
			warnings := got.Warnings()
			if len(warnings) != len(c.warns) {
				t.Fatalf("warnings %q, want %q", warnings, c.warns)
			}
			for i, words := range c.warns {
				if !strings.Contains(warnings[i], words) {
					t.Errorf("warning %q does not speak of %q", warnings[i], words)
				}
			}
		})
	}
}

func TestAProbeLeavesNothingBehind(t *testing.T) {
	s := &flawed{Store: mem.New(nil)}
	put(t, s, "host/signers/1.pub", []byte("not the probe's"))
	if _, err := remote.Probe(t.Context(), s, bytes.NewReader([]byte("12345678"))); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for info, err := range s.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	if diff := cmp.Diff([]string{"host/signers/1.pub"}, keys); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// unreachable is a store that lets a number of calls pass, then fails.
type unreachable struct {
	*mem.Store
	calls atomic.Int32
	limit int32
}

var errDown = errors.New("connection refused")

func (s *unreachable) Put(ctx context.Context, key string, body []byte) error {
	if s.calls.Add(1) > s.limit {
		return errDown
	}
	return s.Store.Put(ctx, key, body)
}

func (s *unreachable) Stat(ctx context.Context, key string) (remote.Info, error) {
	if s.calls.Add(1) > s.limit {
		return remote.Info{}, errDown
	}
	return s.Store.Stat(ctx, key)
}

func TestAProbeThatDoesNotGetThroughFails(t *testing.T) {
	for limit := range int32(20) {
		s := &unreachable{Store: mem.New(nil), limit: limit}
		if _, err := remote.Probe(t.Context(), s, bytes.NewReader([]byte("12345678"))); !errors.Is(err, errDown) {
			t.Errorf("after %d calls: %v", limit, err)
		}
		for info := range s.List(t.Context(), "") {
			t.Errorf("after %d calls %q is left behind", limit, info.Key)
		}
	}
	if _, err := remote.Probe(t.Context(), mem.New(nil), bytes.NewReader(nil)); !errors.Is(err, io.EOF) {
		t.Errorf("without randomness: %v", err)
	}
}
