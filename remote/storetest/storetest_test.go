package storetest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/mem"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

// filled returns a store with objects of 100 bytes at keys.
func filled(t *testing.T, keys ...string) *mem.Store {
	t.Helper()
	s := mem.New(nil)
	for i, key := range keys {
		if err := s.Put(t.Context(), key, storetest.Bytes(byte(i), 100)); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestWrappersWithNothingToDoKeepTheContract(t *testing.T) {
	t.Run("Faulty", func(t *testing.T) {
		storetest.Run(t, func(*testing.T) remote.Store { return storetest.NewFaulty(mem.New(nil)) })
	})
	t.Run("Counting", func(t *testing.T) {
		storetest.Run(t, func(*testing.T) remote.Store { return storetest.NewCounting(mem.New(nil)) })
	})
}

// TestAFaultHitsTheCallItNames makes the same calls under different scripts
// and looks which of them fail.
func TestAFaultHitsTheCallItNames(t *testing.T) {
	broken := errors.New("broken")
	calls := []struct {
		name string
		make func(ctx context.Context, s remote.Store) error
	}{
		{"put b", func(ctx context.Context, s remote.Store) error { return s.Put(ctx, "ann/b", nil) }},
		{"get a", func(ctx context.Context, s remote.Store) error { return get(ctx, s, "ann/a") }},
		{"get b", func(ctx context.Context, s remote.Store) error { return get(ctx, s, "ann/b") }},
		{"stat a", func(ctx context.Context, s remote.Store) error { _, err := s.Stat(ctx, "ann/a"); return err }},
		{"list", func(ctx context.Context, s remote.Store) error { _, err := storetest.Keys(ctx, s, "ann/"); return err }},
		{"get a again", func(ctx context.Context, s remote.Store) error { return get(ctx, s, "ann/a") }},
		{"delete b", func(ctx context.Context, s remote.Store) error { return s.Delete(ctx, "ann/b") }},
	}
	for _, c := range []struct {
		fault storetest.Fault
		fail  []string
	}{
		{storetest.Fault{Kind: storetest.Fail}, []string{"put b"}},
		{storetest.Fault{Kind: storetest.Fail, Call: 4}, []string{"stat a"}},
		{storetest.Fault{Kind: storetest.Fail, Call: 6, Every: true}, []string{"get a again", "delete b"}},
		{storetest.Fault{Kind: storetest.Fail, Op: storetest.OpGet, Every: true}, []string{"get a", "get b", "get a again"}},
		{storetest.Fault{Kind: storetest.Fail, Op: storetest.OpGet, Key: "/a$", Call: 2}, []string{"get a again"}},
		{storetest.Fault{Kind: storetest.Fail, Key: "b$", Call: 3}, []string{"delete b"}},
		{storetest.Fault{Kind: storetest.Fail, Op: storetest.OpList}, []string{"list"}},
		{storetest.Fault{Kind: storetest.LostAnswer, Op: storetest.OpList}, []string{"list"}},
		{storetest.Fault{Kind: storetest.Truncate, Op: storetest.OpDelete}, nil},
	} {
		c.fault.Err = broken
		s := storetest.NewFaulty(filled(t, "ann/a"), c.fault)
		var failed []string
		for _, call := range calls {
			if err := call.make(t.Context(), s); errors.Is(err, broken) {
				failed = append(failed, call.name)
			}
		}
		if diff := cmp.Diff(c.fail, failed); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", c.fault, diff)
		}
		if s.Injected() != len(c.fail) {
			t.Errorf("%+v: Injected is %d, want %d", c.fault, s.Injected(), len(c.fail))
		}
	}
}

func get(ctx context.Context, s remote.Store, key string) error {
	_, err := storetest.Read(ctx, s, key, 0, -1)
	return err
}

func TestALostAnswerHidesAnEffect(t *testing.T) {
	inner := filled(t, "ann/a")
	s := storetest.NewFaulty(inner, storetest.Fault{Kind: storetest.LostAnswer, Every: true})
	if err := s.Put(t.Context(), "ann/b", []byte("x")); !errors.Is(err, storetest.ErrInjected) {
		t.Errorf("put: %v", err)
	}
	if err := s.Put(t.Context(), "ann/b", []byte("x")); !errors.Is(err, remote.ErrExists) {
		t.Errorf("put again: %v, want %v", err, remote.ErrExists)
	}
	if err := s.Delete(t.Context(), "ann/a"); !errors.Is(err, storetest.ErrInjected) {
		t.Errorf("delete: %v", err)
	}
	if keys, _ := storetest.Keys(t.Context(), inner, ""); !slices.Equal(keys, []string{"ann/b"}) {
		t.Errorf("the store holds %q", keys)
	}

	s = storetest.NewFaulty(inner, storetest.Fault{Kind: storetest.Fail, Every: true})
	_ = s.Put(t.Context(), "ann/c", nil)
	_ = s.Delete(t.Context(), "ann/b")
	if keys, _ := storetest.Keys(t.Context(), inner, ""); !slices.Equal(keys, []string{"ann/b"}) {
		t.Errorf("calls that failed before they took effect changed the store to %q", keys)
	}
}

func TestBodiesBreakWhereTheFaultSays(t *testing.T) {
	inner := filled(t, "ann/a")
	whole := storetest.Bytes(0, 100)
	flipped := bytes.Clone(whole[10:90])
	flipped[30] ^= 1
	for _, at := range []int64{0, 1, 79} {
		s := storetest.NewFaulty(inner, storetest.Fault{Kind: storetest.Truncate, At: at})
		got, err := storetest.Read(t.Context(), s, "ann/a", 10, 80)
		if err != nil || !bytes.Equal(got, whole[10:10+at]) {
			t.Errorf("truncated at %d: %d bytes, %v", at, len(got), err)
		}
		s = storetest.NewFaulty(inner, storetest.Fault{Kind: storetest.Break, At: at})
		got, err = storetest.Read(t.Context(), s, "ann/a", 10, 80)
		if !errors.Is(err, storetest.ErrInjected) || !bytes.Equal(got, whole[10:10+at]) {
			t.Errorf("broken at %d: %d bytes, %v", at, len(got), err)
		}
	}
	s := storetest.NewFaulty(inner, storetest.Fault{Kind: storetest.Flip, At: 30})
	got, err := storetest.Read(t.Context(), s, "ann/a", 10, 80)
	if err != nil || !bytes.Equal(got, flipped) {
		t.Errorf("flipped: %x, %v; want %x", got, err, flipped)
	}
}

func TestAStallEndsWithTheContext(t *testing.T) {
	s := storetest.NewFaulty(filled(t, "ann/a"), storetest.Fault{Kind: storetest.Stall, Every: true, At: 50})
	ctx, cancel := context.WithCancel(t.Context())
	r, err := s.Get(ctx, "ann/a", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 50)); err != nil {
		t.Fatal(err)
	}
	calls := map[string]func() error{
		"read":   func() error { _, err := r.Read(make([]byte, 1)); return err },
		"put":    func() error { return s.Put(ctx, "ann/b", nil) },
		"stat":   func() error { _, err := s.Stat(ctx, "ann/a"); return err },
		"list":   func() error { _, err := storetest.Keys(ctx, s, ""); return err },
		"delete": func() error { return s.Delete(ctx, "ann/a") },
	}
	var g errgroup.Group
	for name, call := range calls {
		g.Go(func() error {
			if err := call(); !errors.Is(err, context.Canceled) {
				return fmt.Errorf("%s: %w, want %w", name, err, context.Canceled)
			}
			return nil
		})
	}
	cancel()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func TestAStaleListHidesTheNewest(t *testing.T) {
	s := storetest.NewFaulty(filled(t, "ann/0"))
	for _, key := range []string{"ann/3", "ann/1", "bob/9", "ann/2"} {
		if err := s.Put(t.Context(), key, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		prefix string
		hide   int
		want   string
	}{
		{"", 0, "[ann/0 ann/1 ann/3 bob/9]"},
		{"", 2, "[ann/0 ann/1 ann/3]"},
		{"ann/", 2, "[ann/0 ann/3]"},
		{"ann/", 9, "[ann/0]"},
		{"bob/", 1, "[]"},
	} {
		s.Script(storetest.Fault{Kind: storetest.StaleList, Hide: c.hide})
		got, err := storetest.Keys(t.Context(), s, c.prefix)
		if fmt.Sprint(got) != c.want || err != nil {
			t.Errorf("%q hiding %d: %q, %v; want %s", c.prefix, c.hide, got, err, c.want)
		}
		if got, _ := storetest.Keys(t.Context(), s, ""); len(got) != 5 {
			t.Errorf("the next listing still hides something: %q", got)
		}
	}
}

func TestOnCallComesBeforeAndAfterEveryCall(t *testing.T) {
	inner := mem.New(nil)
	s := storetest.NewFaulty(inner)
	var points []string
	s.OnCall = func(n int, op, key string) {
		_, err := inner.Stat(t.Context(), "ann/a")
		points = append(points, fmt.Sprintf("%d %s %q there=%t", n, op, key, !errors.Is(err, fs.ErrNotExist)))
	}
	_ = s.Put(t.Context(), "ann/a", nil)
	_ = get(t.Context(), s, "ann/b") // fails, and counts too
	_, _ = storetest.Keys(t.Context(), s, "ann/")
	_ = s.Delete(t.Context(), "ann/a")
	want := []string{
		`1 put "ann/a" there=false`, `2 put done "ann/a" there=true`,
		`3 get "ann/b" there=true`, `4 get done "ann/b" there=true`,
		`5 list "ann/" there=true`, `6 list done "ann/" there=true`,
		`7 delete "ann/a" there=true`, `8 delete done "ann/a" there=false`,
	}
	if diff := cmp.Diff(want, points); diff != "" {
		t.Errorf("points (-want +got):\n%s", diff)
	}
}

func TestAGateHoldsCallsBackUntilItIsOpened(t *testing.T) {
	g := storetest.NewGate(t)
	s := storetest.NewFaulty(filled(t, "ann/a"))
	s.OnCall = func(_ int, op, _ string) {
		if op == storetest.OpGet {
			g.Pass()
		}
	}
	done := make(chan error, 2)
	for range 2 {
		go func() { done <- get(t.Context(), s, "ann/a") }()
	}
	g.Await(t)
	if len(done) > 0 {
		t.Error("somebody passed")
	}
	g.Open()
	g.Open()
	for range 2 {
		if err := storetest.Within(t, done); err != nil {
			t.Error(err)
		}
	}
}

func TestCountingCounts(t *testing.T) {
	s := storetest.NewCounting(filled(t, "ann/a", "ann/b"))
	ctx := t.Context()
	_ = s.Put(ctx, "ann/c", make([]byte, 7))
	_ = s.Put(ctx, "ann/c", make([]byte, 7)) // fails
	_ = get(ctx, s, "ann/b")
	_ = get(ctx, s, "ann/a")
	_ = get(ctx, s, "ann/none") // fails
	_, _ = storetest.Read(ctx, s, "ann/b", 10, 20)
	_, _ = s.Stat(ctx, "ann/a")
	_, _ = storetest.Keys(ctx, s, "")
	_ = s.Delete(ctx, "ann/a")
	want := map[string]storetest.Count{
		storetest.OpPut:    {Calls: 2, Failed: 1, Bytes: 14, MaxInFlight: 1},
		storetest.OpGet:    {Calls: 4, Failed: 1, Bytes: 220, MaxInFlight: 1},
		storetest.OpStat:   {Calls: 1, MaxInFlight: 1},
		storetest.OpList:   {Calls: 1, MaxInFlight: 1},
		storetest.OpDelete: {Calls: 1, MaxInFlight: 1},
		"":                 {Calls: 9, Failed: 2, Bytes: 234, MaxInFlight: 1},
	}
	for op, want := range want {
		if diff := cmp.Diff(want, s.Count(op)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", op, diff)
		}
	}
	if diff := cmp.Diff([]string{"ann/b", "ann/a", "ann/none", "ann/b"}, s.KeysRead()); diff != "" {
		t.Errorf("keys read (-want +got):\n%s", diff)
	}

	s.Reset()
	a, err := s.Get(ctx, "ann/b", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Get(ctx, "ann/c", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = s.Stat(ctx, "ann/b")
	for range 2 { // closing twice counts once
		_, _ = a.Close(), b.Close()
	}
	_ = get(ctx, s, "ann/b")
	if got := s.Count(storetest.OpGet).MaxInFlight; got != 2 {
		t.Errorf("most Gets in flight: %d, want 2", got)
	}
	if got := s.Count("").MaxInFlight; got != 3 {
		t.Errorf("most calls in flight: %d, want 3", got)
	}
}

// TestTheSuiteSeesBrokenStores tells the story that must notice it, in a process
// of its own, of stores that break the contract in one way each.
func TestTheSuiteSeesBrokenStores(t *testing.T) {
	for _, c := range brokenStores {
		t.Run(c.name, func(t *testing.T) {
			output := runBroken(t, c.name, c.story)
			if !strings.Contains(output, "--- FAIL: TestBroken/"+c.story) {
				t.Errorf("the story %q did not fail:\n%s", c.story, output)
			}
		})
	}
}
