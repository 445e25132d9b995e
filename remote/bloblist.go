package remote

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"iter"
	"slices"
	"strconv"
)

// listHeader is the first line of a blob list.
const listHeader = "vaultik blobs 1\n"

// maxListLine bounds a line: seq, blank, hash, blank, a size below MaxBlob and
// the line end.
const minListLine, maxListLine = 10 + 1 + 64 + 1 + 1 + 1, 10 + 1 + 64 + 1 + 10 + 1

// EncodeList returns a blob list of the objects, which it sorts in a copy, and
// the size of its text. Make sure that no object is there twice.
func EncodeList(objects []Object) (object []byte, plainSize int64) {
	objects = sorted(objects)
	text := make([]byte, 0, len(listHeader)+len(objects)*maxListLine)
	text = append(text, listHeader...)
	for _, o := range objects {
		text = appendListLine(text, o)
	}
	return compress(text), int64(len(text))
}

func appendListLine(text []byte, o Object) []byte {
	text = o.Seq.append(text)
	text = append(text, ' ')
	text = hex.AppendEncode(text, o.SHA256[:])
	text = append(text, ' ')
	text = strconv.AppendInt(text, o.Size, 10)
	return append(text, '\n')
}

// DecodeList reads a blob list that has plainSize bytes of text. Errors wrap
// ErrUnsupported where the list is of another version, else ErrCorrupt.
func DecodeList(object []byte, plainSize int64) ([]Object, error) {
	if len(object) > MaxList || plainSize < 0 || plainSize > MaxList {
		return nil, fmt.Errorf("blob list: %w: %d bytes, %d of text, more than the limit of %d", ErrCorrupt, len(object), plainSize, MaxList)
	}
	var objects []Object
	err := decompress(object, plainSize, func(text []byte) (err error) {
		if int64(len(text)) != plainSize {
			return fmt.Errorf("%w: %d bytes of text instead of %d", ErrCorrupt, len(text), plainSize)
		}
		objects, err = parseList(text)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("blob list: %w", err)
	}
	return objects, nil
}

func parseList(text []byte) ([]Object, error) {
	corrupt := func(format string, args ...any) ([]Object, error) {
		return nil, fmt.Errorf("%w: "+format, append([]any{ErrCorrupt}, args...)...)
	}
	if !bytes.HasPrefix(text, []byte(listHeader)) {
		first, _, _ := bytes.Cut(text[:min(len(text), 64)], []byte("\n"))
		if bytes.HasPrefix(first, []byte("vaultik blobs ")) {
			return nil, fmt.Errorf("%w: its first line is %q; use a newer version", ErrUnsupported, first)
		}
		return corrupt("its first line is %q", first)
	}
	rest := text[len(listHeader):]
	objects := make([]Object, 0, len(rest)/minListLine)
	for n := 2; len(rest) > 0; n++ {
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		o, ok := parseListLine(line)
		if !ended || !ok {
			return corrupt("line %d is %.100q", n, line)
		}
		if len(objects) > 0 && CompareNames(objects[len(objects)-1].Name(), o.Name()) >= 0 {
			return corrupt("line %d is out of order or there twice", n)
		}
		objects = append(objects, o)
		rest = after
	}
	return objects, nil
}

// parseListLine accepts what appendListLine writes, and nothing else. A store
// with a long history has millions of lines.
func parseListLine(line []byte) (o Object, ok bool) {
	if len(line) < minListLine-1 || len(line) > maxListLine-1 || line[10] != ' ' || line[75] != ' ' || !o.SHA256.decode(line[11:75]) {
		return o, false
	}
	seq, seqOK := digits(line[:10])
	size, sizeOK := digits(line[76:])
	o.Seq, o.Size = Seq(seq), size
	return o, seqOK && seq > 0 && sizeOK && size > 0 && size <= MaxBlob && line[76] != '0'
}

// digits reads at most 18 decimal digits.
func digits(text []byte) (n int64, ok bool) {
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int64(c-'0')
	}
	return n, len(text) > 0 && len(text) <= 18
}

// FetchList gets a blob list from the store and checks it against its
// reference.
func FetchList(ctx context.Context, s Store, writer string, ref ListRef) ([]Object, error) {
	key := ListKey(writer, ref.Seq, ref.SHA256)
	if ref.Size < 0 || ref.Size > MaxList {
		return nil, fmt.Errorf("%q: %w: a list of %d bytes, more than the limit of %d", key, ErrCorrupt, ref.Size, MaxList)
	}
	object, err := get(ctx, s, key, ref.Size)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", key, err)
	}
	if int64(len(object)) != ref.Size || Sum(object) != ref.SHA256 {
		return nil, fmt.Errorf("%q: %w: its bytes are not those that the manifest signs", key, ErrCorrupt)
	}
	objects, err := DecodeList(object, ref.PlainSize)
	if err == nil && int64(len(objects)) != ref.Count {
		err = fmt.Errorf("%w: it names %d blobs instead of %d", ErrCorrupt, len(objects), ref.Count)
	}
	if err != nil {
		return nil, fmt.Errorf("%q: %w", key, err)
	}
	return objects, nil
}

// Resolve returns the blobs of the set, sorted. fetch is called at most once
// and must return a checked list, as FetchList does.
func (l ObjectList) Resolve(fetch func(ListRef) ([]Object, error)) ([]Object, error) {
	if l.List == nil {
		return slices.Clone(l.Add), nil
	}
	base, err := fetch(*l.List)
	if err != nil {
		return nil, err
	}
	refuse := func(why string, n Name) ([]Object, error) {
		return nil, fmt.Errorf("blob list %s: %w: the manifest %s blob %s of run %d", l.List.SHA256, ErrCorrupt, why, n.SHA256, n.Seq)
	}
	all := make([]Object, 0, len(base)+len(l.Add))
	drop, add := l.Drop, l.Add
	for _, o := range base {
		for len(add) > 0 && CompareNames(add[0].Name(), o.Name()) < 0 {
			all, add = append(all, add[0]), add[1:]
		}
		if len(add) > 0 && add[0].Name() == o.Name() {
			return refuse("adds what is in it:", o.Name())
		}
		if len(drop) > 0 && drop[0] == o.Name() {
			drop = drop[1:]
			continue
		}
		all = append(all, o)
	}
	if len(drop) > 0 {
		return refuse("drops what is not in it:", drop[0])
	}
	return append(all, add...), nil
}

// Added yields those of now that are not in before. Both are sorted, as the
// objects of a manifest are. From run to run hardly anything is added, and
// comparing two manifests finds that sooner than looking each object up.
func Added(before, now []Object) iter.Seq[Object] {
	return func(yield func(Object) bool) {
		for _, o := range now {
			for len(before) > 0 && CompareNames(before[0].Name(), o.Name()) < 0 {
				before = before[1:]
			}
			if len(before) > 0 && before[0] == o {
				continue
			}
			if !yield(o) {
				return
			}
		}
	}
}

// Diff writes the set want as a difference to a list in the store, or in full
// if base is nil. list is what base resolves to. Neither needs to be sorted.
func Diff(base *ListRef, list, want []Object) ObjectList {
	l := ObjectList{List: base, Add: []Object{}, Drop: []Name{}}
	if base == nil {
		list = nil
	}
	list, want = sorted(list), sorted(want)
	for len(list) > 0 || len(want) > 0 {
		switch {
		case len(want) == 0 || len(list) > 0 && CompareNames(list[0].Name(), want[0].Name()) < 0:
			l.Drop, list = append(l.Drop, list[0].Name()), list[1:]
		case len(list) == 0 || CompareNames(list[0].Name(), want[0].Name()) > 0:
			l.Add, want = append(l.Add, want[0]), want[1:]
		default:
			list, want = list[1:], want[1:]
		}
	}
	return l
}

func sorted(objects []Object) []Object {
	objects = slices.Clone(objects)
	slices.SortFunc(objects, func(a, b Object) int { return CompareNames(a.Name(), b.Name()) })
	return objects
}
