package audit_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/audit"
	"git.eeqj.de/sneak/vaultik/remote/mem"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

// there says whether a store has an object.
func (w *world) there(k string) bool {
	_, err := w.Stat(w.t.Context(), k)
	return err == nil
}

// What is rotten is deleted where the writer's next backup replaces it, and
// nowhere else: its undamaged parts are worth more than nothing.
func TestOnlyWhatComesBackIsDeleted(t *testing.T) {
	w := newWorld(t)
	for _, k := range []string{
		blobKey(shared(1)), blobKey(shared(3)), blobKey(w.objects[3].Blobs.Add[0]), // needed, pinned, old
		dumpKey(5), dumpKey(4), dumpKey(1), // the set's base, another set's, an old one
	} {
		w.flip(k)
	}
	_, found := w.audit(w, quick, reading(audit.Read{Delete: true}))
	want := []string{
		"rotten " + below(blobKey(shared(1))) + " needed by 3 deleted",
		"rotten " + below(blobKey(shared(3))) + " needed by 2 pinned deleted",
		"rotten " + below(blobKey(w.objects[3].Blobs.Add[0])) + " needed by 1",
		"rotten " + below(dumpKey(1)) + " needed by 2",
		"rotten " + below(dumpKey(4)) + " needed by 1 pinned deleted",
		"rotten " + below(dumpKey(5)) + " needed by 1 deleted",
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, lines(found)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, f := range found {
		if w.there(f.Key) == f.Deleted {
			t.Errorf("%s: there %t", line(f), w.there(f.Key))
		}
		if f.Deleted && !strings.Contains(f.Advice, `the next backup of writer "ann"`) || !f.Deleted && !strings.Contains(f.Advice, "no backup") {
			t.Errorf("%s: the advice is %q", line(f), f.Advice)
		}
	}
	// The next look finds them missing, as the writer's does.
	_, found = w.audit(w, quick)
	if len(found) != 4 {
		t.Errorf("then: %q", lines(found))
	}
}

// Where a manifest cannot be believed or is hidden, nobody can tell what the next
// run counts on, and what is left of a rotten blob stays.
func TestNothingIsDeletedOfAWriterThatCannotBeBelieved(t *testing.T) {
	w := newWorld(t)
	k := blobKey(shared(1))
	w.flip(k)
	w.put(manifestKey(99), []byte("junk"))
	_, found := w.audit(w, quick, reading(audit.Read{Delete: true}))
	said := slices.ContainsFunc(found, func(f audit.Finding) bool {
		return f.Key == k && f.Kind == audit.Rotten && strings.Contains(f.Err.Error(), "it was not deleted")
	})
	if !said || !w.there(k) {
		t.Errorf("there %t, findings %q", w.there(k), lines(found))
	}
}

// In a store that keeps versions, what was written over a blob goes, and the blob
// is there again.
func TestWhatWasWrittenOverABlobIsTakenOff(t *testing.T) {
	w := newWorld(t)
	kept := mem.NewVersioned(nil)
	for info, err := range w.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if err := kept.Put(t.Context(), info.Key, w.get(info.Key)); err != nil {
			t.Fatal(err)
		}
	}
	old, needed := blobKey(w.objects[3].Blobs.Add[0]), blobKey(shared(1))
	for _, k := range []string{old, needed} {
		size := len(w.get(k))
		kept.Overwrite(k, bytes.Repeat([]byte("x"), size))
		kept.Overwrite(k, bytes.Repeat([]byte("y"), size))
	}
	_, found := w.audit(kept, quick, reading(audit.Read{Delete: true}))
	for _, f := range found {
		if f.Kind != audit.Rotten || f.Deleted || f.Advice != "" || !strings.Contains(f.Err.Error(), "on top again") {
			t.Errorf("%s: %v, advice %q", line(f), f.Err, f.Advice)
		}
	}
	if len(found) != 2 {
		t.Errorf("%q", lines(found))
	}
	if _, found := w.audit(kept, quick, reading(audit.Read{})); len(found) > 0 {
		t.Errorf("then: %q", lines(found))
	}
}

// Nothing is condemned that was not read twice, to the same end.
func TestWhatCouldNotBeReadStays(t *testing.T) {
	k := blobKey(shared(1))
	wrong := func(n byte) []byte { return bytes.Repeat([]byte{n}, 8) }
	broken := storetest.Fault{Op: storetest.OpGet, Key: k, Kind: storetest.Break, At: 3}
	for name, c := range map[string]struct {
		body  func(nth int) []byte
		fault []storetest.Fault
		want  audit.Kind
	}{
		"wrong, then right":                 {body: func(nth int) []byte { return map[int][]byte{1: wrong(1)}[nth] }, want: audit.Unsteady},
		"wrong in two ways":                 {body: func(nth int) []byte { return wrong(byte(nth)) }, want: audit.Unsteady},
		"wrong, then broken off":            {body: func(int) []byte { return wrong(1) }, fault: []storetest.Fault{func() storetest.Fault { f := broken; f.Call = 2; return f }()}, want: audit.Unreadable},
		"broken off, then wrong":            {body: func(int) []byte { return wrong(1) }, fault: []storetest.Fault{broken}, want: audit.Unreadable},
		"broken off twice":                  {fault: []storetest.Fault{func() storetest.Fault { f := broken; f.Every = true; return f }()}, want: audit.Unreadable},
		"denied":                            {fault: []storetest.Fault{{Op: storetest.OpGet, Key: k, Every: true, Kind: storetest.Fail, Err: remote.ErrDenied}}, want: audit.Unreadable},
		"broken off, then right":            {fault: []storetest.Fault{broken}},
		"short, and no error, then right":   {fault: []storetest.Fault{{Op: storetest.OpGet, Key: k, Kind: storetest.Truncate, At: 3}}, want: audit.Unsteady},
		"wrong twice: the same wrong bytes": {body: func(int) []byte { return wrong(1) }, want: audit.Rotten},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			l := &lying{Store: w.Store, reads: map[string]int{}}
			if c.body != nil {
				l.body = func(key string, nth int) []byte {
					if key == k {
						return c.body(nth)
					}
					return nil
				}
			}
			_, found := w.audit(storetest.NewFaulty(l, c.fault...), quick, reading(audit.Read{Delete: true}))
			var want []string
			if c.want != "" {
				want = []string{string(c.want) + " " + below(k) + " needed by 3"}
			}
			if c.want == audit.Rotten {
				want[0] += " deleted"
			}
			if diff := cmp.Diff(want, lines(found)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if w.there(k) == (c.want == audit.Rotten) {
				t.Errorf("the blob is there: %t", w.there(k))
			}
		})
	}
}

// A store that is gone ends the audit; what was found until then is told, and
// where the rotation was is kept.
func TestAnAuditThatIsBrokenOffLosesNothing(t *testing.T) {
	w := newWorld(t)
	keys := w.inOrder()
	w.flip(keys[0])
	path := filepath.Join(t.TempDir(), "audit.json")
	memory := open(t, path)
	gone := &vanishing{Store: w, first: keys[0], last: keys[8], read: make(chan struct{}, 2)}
	var found []audit.Finding
	_, err := audit.Run(t.Context(), audit.Options{
		Store: gone, Root: key(t, "root").Public(), Writers: []string{"ann"},
		Read: &audit.Read{Subset: audit.Subset{Percent: 100}}, Memory: memory, Scope: "all",
		Report: func(f audit.Finding) { found = append(found, f) },
	})
	if !errors.Is(err, remote.ErrNoStore) || len(found) != 1 || found[0].Kind != audit.Rotten {
		t.Errorf("%v, found %q", err, lines(found))
	}
	counting := storetest.NewCounting(w)
	result, _ := w.audit(counting, quick, reading(audit.Read{Subset: audit.Subset{Bytes: 1}}), remembering(open(t, path)))
	if read := bodies(counting.KeysRead()); len(read) != 1 || !slices.Contains(keys[1:9], read[0]) {
		t.Errorf("read then: %q", read)
	}
	if c := result.Coverage; c.Read.Objects < 2 || c.All.Objects != int64(len(keys))+1 {
		t.Errorf("covered: %+v", c)
	}
}

// Slices and shares come round to every object once, in any order of runs and
// with objects that come in between.
func TestARotationComesRoundToEveryObject(t *testing.T) {
	t.Run("slices", func(t *testing.T) {
		w := newWorld(t)
		var read []string
		for n := 1; n <= 4; n++ {
			counting := storetest.NewCounting(w)
			w.audit(counting, quick, reading(audit.Read{Subset: audit.Subset{Slice: n, Of: 4}}))
			read = append(read, bodies(counting.KeysRead())...)
		}
		slices.Sort(read)
		keys := w.inOrder()
		slices.Sort(keys)
		if diff := cmp.Diff(keys, read); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	for name, s := range map[string]audit.Subset{"percent": {Percent: 10}, "bytes": {Bytes: 30}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			path := filepath.Join(t.TempDir(), "audit.json")
			counting := storetest.NewCounting(w)
			runs := 0
			for ; ; runs++ {
				if runs == 1 {
					w.commit(w.manifest(6), "ann")
				}
				result, found := w.audit(counting, quick, reading(audit.Read{Subset: s}), remembering(open(t, path)))
				if len(found) > 0 || result.Read.Objects == 0 || result.Read.Objects > 8 {
					t.Fatalf("run %d read %d objects, found %q", runs, result.Read.Objects, lines(found))
				}
				if result.Coverage.Round != nil {
					break
				}
			}
			read := make(map[string]int)
			for _, k := range bodies(counting.KeysRead()) {
				read[k]++
			}
			for i, k := range w.inOrder() {
				late := k == blobKey(w.objects[6].Blobs.Add[0]) || k == dumpKey(6)
				again := i < 8 // the last run may have begun the next round
				if n := read[k]; n > 1 && !again || n == 0 && !late {
					t.Errorf("%s was read %d times in %d runs", k, n, runs)
				}
			}
		})
	}
}

func TestAWholeReadingIsARound(t *testing.T) {
	w := newWorld(t)
	memory := open(t, filepath.Join(t.TempDir(), "audit.json"))
	counting := storetest.NewCounting(w)
	result, _ := w.audit(counting, reading(audit.Read{}), remembering(memory))
	if read := bodies(counting.KeysRead()); len(read) != len(w.inOrder()) || result.Read != result.Named || result.Coverage.Round == nil {
		t.Errorf("read %d objects, %+v of %+v, %+v", len(read), result.Read, result.Named, result.Coverage)
	}
	if result.Sums != result.Named.Objects || result.NoSums != 0 {
		t.Errorf("%d checksums, %d objects without", result.Sums, result.NoSums)
	}
	if max := counting.Count(storetest.OpGet).MaxInFlight; max > 17 {
		t.Errorf("%d at a time", max)
	}
}

func remembering(m *audit.Memory) func(*audit.Options) {
	return func(o *audit.Options) { o.Memory, o.Scope = m, "all" }
}

func open(t *testing.T, path string) *audit.Memory {
	t.Helper()
	m, err := audit.OpenMemory(path)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestADamagedMemoryIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.json")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("{")
	if _, err := audit.OpenMemory(path); !errors.Is(err, remote.ErrCorrupt) || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("%v", err)
	}
	write(`{"format":2,"stores":{}}`)
	if _, err := audit.OpenMemory(path); !errors.Is(err, remote.ErrUnsupported) {
		t.Errorf("%v", err)
	}
}

// inOrder returns the keys of blobs and dumps, by hash.
func (w *world) inOrder() []string {
	var keys []string
	for info, err := range w.List(context.Background(), "ann/") {
		if err != nil {
			w.t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	keys = bodies(keys)
	slices.SortFunc(keys, func(a, b string) int { return strings.Compare(hashOf(a), hashOf(b)) })
	return keys
}

func hashOf(k string) string { return k[strings.LastIndex(k, "/")+1:] }

// bodies leaves out what is read in any case: lists too, which are small.
func bodies(keys []string) []string {
	keys = slices.Clone(keys)
	slices.Sort(keys)
	out := slices.DeleteFunc(slices.Clone(keys), func(k string) bool {
		p, err := remote.ParseKey(k)
		return err != nil || p.Kind != remote.KindBlob && p.Kind != remote.KindDump
	})
	return out
}

// vanishing is gone when the last object is asked for, and the first one was
// read twice.
type vanishing struct {
	remote.Store
	first, last string
	read        chan struct{}
}

func (s *vanishing) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if key == s.last {
		for range 2 {
			select {
			case <-s.read:
			case <-time.After(time.Minute):
				return nil, errors.New("the first object was not read twice")
			}
		}
		return nil, remote.ErrNoStore
	}
	r, err := s.Store.Get(ctx, key, off, n)
	if err == nil && key == s.first {
		return closing{r, s.read}, nil
	}
	return r, err
}

type closing struct {
	io.ReadCloser
	closed chan<- struct{}
}

func (c closing) Close() error {
	err := c.ReadCloser.Close()
	c.closed <- struct{}{}
	return err
}
