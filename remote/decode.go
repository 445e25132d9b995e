package remote

import (
	"bytes"
	"encoding/hex"
)

// decodeManifest reads the JSON of a manifest. Nearly all of a long one are the
// four arrays of its two sets of blobs, and encoding/json takes twenty times
// as long for them as they need: so they are read here, which accepts exactly
// what would be written for them, and the rest is read without them. Of what
// is not so plain encoding/json says what is wrong with it.
func decodeManifest(plain []byte) (*Manifest, error) {
	if m, ok := decodeParts(plain); ok {
		return m, nil
	}
	m := new(Manifest)
	return m, decode(plain, m, m.plain, m.validate)
}

func decodeParts(plain []byte) (*Manifest, bool) {
	m := new(Manifest)
	var sets [2]ObjectList
	frame := make([]byte, 0, min(len(plain), 4096))
	rest := plain
	for i := range sets {
		var ok bool
		if frame, rest, ok = upTo(frame, rest, `"add":[`); !ok {
			return nil, false
		}
		if sets[i].Add, rest, ok = cutObjects(rest); !ok {
			return nil, false
		}
		if frame, rest, ok = upTo(frame, rest, `"drop":[`); !ok {
			return nil, false
		}
		if sets[i].Drop, rest, ok = cutNames(rest); !ok {
			return nil, false
		}
	}
	// No string holds a quote, so that each of the words found is a key. In the
	// one encoding of a frame there are just four such keys.
	frame = append(frame, rest...)
	if strict(frame, m, m.plain) != nil {
		return nil, false
	}
	m.Blobs.Add, m.Blobs.Drop = sets[0].Add, sets[0].Drop
	m.Pins.Add, m.Pins.Drop = sets[1].Add, sets[1].Drop
	return m, m.validate() == nil
}

// upTo moves what leads to a word, and the word, from rest to frame.
func upTo(frame, rest []byte, word string) ([]byte, []byte, bool) {
	before, after, ok := bytes.Cut(rest, []byte(word))
	return append(append(frame, before...), word...), after, ok
}

// cutObjects reads the elements of an array of objects, up to its bracket.
func cutObjects(rest []byte) (objects []Object, _ []byte, ok bool) {
	objects = make([]Object, 0, elements(rest))
	for first := true; !bytes.HasPrefix(rest, []byte("]")); first = false {
		var o Object
		if rest, ok = cutName(rest, first, &o.Seq, &o.SHA256); !ok {
			return nil, nil, false
		}
		if rest, ok = bytes.CutPrefix(rest, []byte(`,"size":`)); !ok {
			return nil, nil, false
		}
		var size uint64
		if size, rest, ok = cutNumber(rest); !ok {
			return nil, nil, false
		}
		if rest, ok = bytes.CutPrefix(rest, []byte("}")); !ok {
			return nil, nil, false
		}
		o.Size = int64(size)
		objects = append(objects, o)
	}
	return objects, rest, true
}

// cutNames reads the elements of an array of names, up to its bracket.
func cutNames(rest []byte) (names []Name, _ []byte, ok bool) {
	names = make([]Name, 0, elements(rest))
	for first := true; !bytes.HasPrefix(rest, []byte("]")); first = false {
		var n Name
		if rest, ok = cutName(rest, first, &n.Seq, &n.SHA256); !ok {
			return nil, nil, false
		}
		if rest, ok = bytes.CutPrefix(rest, []byte("}")); !ok {
			return nil, nil, false
		}
		names = append(names, n)
	}
	return names, rest, true
}

// elements counts those of an array, so that it takes no more memory than it
// needs.
func elements(rest []byte) int {
	array, _, _ := bytes.Cut(rest, []byte("]"))
	return bytes.Count(array, []byte("{"))
}

// cutName reads what objects and names begin with, and the comma before it.
func cutName(rest []byte, first bool, seq *Seq, hash *Hash) (_ []byte, ok bool) {
	if !first {
		if rest, ok = bytes.CutPrefix(rest, []byte(",")); !ok {
			return nil, false
		}
	}
	if rest, ok = bytes.CutPrefix(rest, []byte(`{"seq":`)); !ok {
		return nil, false
	}
	var n uint64
	if n, rest, ok = cutNumber(rest); !ok {
		return nil, false
	}
	*seq = Seq(n)
	if rest, ok = bytes.CutPrefix(rest, []byte(`,"sha256":"`)); !ok {
		return nil, false
	}
	digits := hex.EncodedLen(len(hash))
	if len(rest) < digits || !hash.decode(rest[:digits]) {
		return nil, false
	}
	return bytes.CutPrefix(rest[digits:], []byte(`"`))
}

// cutNumber reads an integer as JSON writes it, below 10^16: valid ones are.
func cutNumber(rest []byte) (n uint64, _ []byte, ok bool) {
	i := 0
	for ; i < len(rest) && i < 17 && rest[i] >= '0' && rest[i] <= '9'; i++ {
		n = 10*n + uint64(rest[i]-'0')
	}
	if i == 0 || i > 16 || i > 1 && rest[0] == '0' {
		return 0, nil, false
	}
	return n, rest[i:], true
}
