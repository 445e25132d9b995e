package remote_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/mem"
)

// sets generates sorted sets of blobs from a small pool, so that two of them
// overlap.
func sets() *rapid.Generator[[]remote.Object] {
	pool := append(append(blobsOf(1), blobsOf(2)...), blobsOf(9_999_999_999)...)
	return rapid.Custom(func(t *rapid.T) []remote.Object {
		set := []remote.Object{}
		for _, o := range pool {
			if rapid.Bool().Draw(t, "in") {
				set = append(set, o)
			}
		}
		return set
	})
}

func TestListsSurviveTheirBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := sets().Draw(t, "set")
		object, plain := remote.EncodeList(rapid.Permutation(want).Draw(t, "order"))
		got, err := remote.DecodeList(object, plain)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	})
}

func TestADifferenceLeadsBackToTheSet(t *testing.T) {
	ref := listRef(1)
	rapid.Check(t, func(t *rapid.T) {
		list, want := sets().Draw(t, "list"), sets().Draw(t, "want")
		base := rapid.SampledFrom([]*remote.ListRef{nil, &ref}).Draw(t, "base")
		d := remote.Diff(base, list, want)
		got, err := d.Resolve(func(r remote.ListRef) ([]remote.Object, error) {
			if r != ref {
				t.Errorf("fetches %v", r)
			}
			return list, nil
		})
		if diff := cmp.Diff(want, slices.AppendSeq([]remote.Object{}, slices.Values(got))); err != nil || diff != "" {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
		if base != nil && len(d.Add)+len(d.Drop) > len(list)+len(want) {
			t.Errorf("%d added and %d dropped between %d and %d blobs", len(d.Add), len(d.Drop), len(list), len(want))
		}
		if base != nil && slices.Equal(list, want) && len(d.Add)+len(d.Drop) != 0 {
			t.Errorf("nothing changed, but the difference is %v", d)
		}
	})
}

func TestWhatIsAddedIsWhatWasNotThereBefore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before, now := sets().Draw(t, "before"), sets().Draw(t, "now")
		if len(before) > 0 && rapid.Bool().Draw(t, "one has another size") {
			before = slices.Clone(before)
			before[0].Size++
		}
		want := slices.DeleteFunc(slices.Clone(now), func(o remote.Object) bool { return slices.Contains(before, o) })
		if got := slices.Collect(remote.Added(before, now)); !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
}

func TestADifferenceThatDoesNotFitItsListIsRefused(t *testing.T) {
	ref, list := listRef(1), blobsOf(1)
	fetch := func(remote.ListRef) ([]remote.Object, error) { return list, nil }
	for name, l := range map[string]remote.ObjectList{
		"adds what is there":      {List: &ref, Add: list[1:2]},
		"drops what is not there": {List: &ref, Drop: []remote.Name{object(1, "not there", 1).Name()}},
		"drops twice":             {List: &ref, Drop: []remote.Name{list[0].Name(), list[0].Name()}},
	} {
		if got, err := l.Resolve(fetch); !errors.Is(err, remote.ErrCorrupt) {
			t.Errorf("%s: %v, %v, want ErrCorrupt", name, got, err)
		}
	}
	lost := errors.New("lost")
	l := remote.ObjectList{List: &ref}
	if _, err := l.Resolve(func(remote.ListRef) ([]remote.Object, error) { return nil, lost }); !errors.Is(err, lost) {
		t.Errorf("%v, want the error of fetch", err)
	}
}

var goodLine = "0000000001 " + h.String() + " 33554432\n"

// brokenLists are texts that are no blob lists.
var brokenLists = []struct {
	name, text string
	want       error
}{
	{"version-2", "vaultik blobs 2\n" + goodLine, remote.ErrUnsupported},
	{"version-missing", goodLine, remote.ErrCorrupt},
	{"empty", "", remote.ErrCorrupt},
	{"no-line-end", "vaultik blobs 1\n" + strings.TrimSuffix(goodLine, "\n"), remote.ErrCorrupt},
	{"line-empty", "vaultik blobs 1\n\n" + goodLine, remote.ErrCorrupt},
	{"line-twice", "vaultik blobs 1\n" + goodLine + goodLine, remote.ErrCorrupt},
	{"lines-swapped", "vaultik blobs 1\n" + strings.Replace(goodLine, "0001 ", "0002 ", 1) + goodLine, remote.ErrCorrupt},
	{"same-blob-other-size", "vaultik blobs 1\n" + goodLine + strings.Replace(goodLine, " 3", " 4", 1), remote.ErrCorrupt},
	{"line-end-crlf", "vaultik blobs 1\n" + strings.Replace(goodLine, "\n", "\r\n", 1), remote.ErrCorrupt},
	{"blanks-two", "vaultik blobs 1\n" + strings.Replace(goodLine, " ", "  ", 1), remote.ErrCorrupt},
	{"tab", "vaultik blobs 1\n" + strings.Replace(goodLine, " ", "\t", 1), remote.ErrCorrupt},
	{"seq-zero", "vaultik blobs 1\n" + strings.Replace(goodLine, "0001 ", "0000 ", 1), remote.ErrCorrupt},
	{"seq-short", "vaultik blobs 1\n" + goodLine[1:], remote.ErrCorrupt},
	{"hash-upper-case", "vaultik blobs 1\n" + strings.ToUpper(goodLine), remote.ErrCorrupt},
	{"hash-short", "vaultik blobs 1\n" + strings.Replace(goodLine, h.String(), h.String()[1:], 1), remote.ErrCorrupt},
	{"size-zero", "vaultik blobs 1\n" + strings.Replace(goodLine, "33554432", "0", 1), remote.ErrCorrupt},
	{"size-leading-zero", "vaultik blobs 1\n" + strings.Replace(goodLine, "33554432", "033554432", 1), remote.ErrCorrupt},
	{"size-plus", "vaultik blobs 1\n" + strings.Replace(goodLine, "33554432", "+33554432", 1), remote.ErrCorrupt},
	{"size-negative", "vaultik blobs 1\n" + strings.Replace(goodLine, "33554432", "-33554432", 1), remote.ErrCorrupt},
	{"size-missing", "vaultik blobs 1\n" + strings.Replace(goodLine, "33554432", "", 1), remote.ErrCorrupt},
	{"size-above-limit", "vaultik blobs 1\n" + strings.Replace(goodLine, "33554432", "1073741825", 1), remote.ErrCorrupt},
}

func TestBrokenListsAreRefused(t *testing.T) {
	for _, b := range brokenLists {
		if _, err := remote.DecodeList(pack(t, []byte(b.text)), int64(len(b.text))); !errors.Is(err, b.want) {
			t.Errorf("%s: %v, want %v", b.name, err, b.want)
		}
	}
	object, plain := remote.EncodeList(blobsOf(1))
	for _, size := range []int64{plain - 1, plain + 1, 0, -1, remote.MaxList + 1} {
		if _, err := remote.DecodeList(object, size); !errors.Is(err, remote.ErrCorrupt) {
			t.Errorf("size %d instead of %d: %v, want ErrCorrupt", size, plain, err)
		}
	}
}

func TestAListIsFetchedAndCheckedAgainstItsReference(t *testing.T) {
	ctx := t.Context()
	list, _ := remote.EncodeList(blobsOf(1))
	ref := listRef(1)
	s := mem.New(nil)
	put(t, s, remote.ListKey("host", 1, ref.SHA256), list)
	got, err := remote.FetchList(ctx, s, "host", ref)
	if diff := cmp.Diff(blobsOf(1), got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for name, r := range map[string]remote.ListRef{
		"another size":       {Object: remote.Object{Seq: 1, SHA256: ref.SHA256, Size: ref.Size - 1}, PlainSize: ref.PlainSize, Count: 3},
		"another count":      {Object: ref.Object, PlainSize: ref.PlainSize, Count: 2},
		"another plain size": {Object: ref.Object, PlainSize: ref.PlainSize + 1, Count: 3},
	} {
		if _, err := remote.FetchList(ctx, s, "host", r); !errors.Is(err, remote.ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
	}
	// A good list under another list's name.
	other := ref
	other.SHA256 = h
	put(t, s, remote.ListKey("host", 1, h), list)
	if _, err := remote.FetchList(ctx, s, "host", other); !errors.Is(err, remote.ErrCorrupt) {
		t.Errorf("another list: %v, want ErrCorrupt", err)
	}
}

func FuzzDecodeList(f *testing.F) {
	object, _ := remote.EncodeList(blobsOf(1))
	f.Add(unpack(f, object))
	for _, b := range brokenLists {
		f.Add([]byte(b.text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		objects, err := remote.DecodeList(pack(t, text), int64(len(text)))
		if err != nil {
			if !errors.Is(err, remote.ErrCorrupt) && !errors.Is(err, remote.ErrUnsupported) {
				t.Errorf("%v is neither ErrCorrupt nor ErrUnsupported", err)
			}
			return
		}
		again, size := remote.EncodeList(objects)
		if !bytes.Equal(unpack(t, again), text) || size != int64(len(text)) {
			t.Errorf("accepted %q", text)
		}
	})
}

func put(t testing.TB, s remote.Store, key string, body []byte) {
	t.Helper()
	if err := s.Put(t.Context(), key, body); err != nil {
		t.Fatal(err)
	}
}
