package remote

import (
	"bytes"
	"encoding/hex"
)

// decodeManifest reads the JSON of a manifest. A store has tens of thousands,
// with long arrays, and encoding/json takes twenty times as long for them as
// they need: so they are read here, which accepts exactly what would be written.
// Of what is not so plain encoding/json says what is wrong with it.
func decodeManifest(plain []byte) (*Manifest, error) {
	if m, ok := decodePlain(plain); ok {
		return m, nil
	}
	m := new(Manifest)
	return m, decode(plain, m, m.plain, m.validate)
}

// decodePlain reads the canonical encoding and no other. Strings end with the
// first quote: validate accepts none that has to be escaped.
func decodePlain(plain []byte) (*Manifest, bool) {
	c := &cursor{rest: plain, ok: true}
	m := new(Manifest)
	m.Format = int(c.number(`{"format":`))
	m.Requires = array(c, `,"requires":[`, 0, (*cursor).text)
	m.Type = c.field(`,"type":`)
	m.Writer = c.field(`,"writer":`)
	m.Seq = Seq(c.number(`,"seq":`))
	c.word(`,"previous":`)
	if !c.null() {
		m.Previous = new(Hash)
		*m.Previous = c.hash()
	}
	m.Snapshot = c.field(`,"snapshot":`)
	m.Set = c.field(`,"set":`)
	m.Tags = array(c, `,"tags":[`, 0, (*cursor).text)
	m.Started = c.field(`,"started":`)
	m.Finished = c.field(`,"finished":`)
	m.Version = c.field(`,"version":`)
	m.Totals = Totals{
		Files: c.number(`,"totals":{"files":`), Bytes: c.number(`,"bytes":`),
		NewFiles: c.number(`,"new_files":`), NewBytes: c.number(`,"new_bytes":`), StoredBytes: c.number(`,"stored_bytes":`),
	}
	m.Rows = Rows{
		Volumes: c.number(`},"rows":{"volumes":`), Paths: c.number(`,"paths":`), Files: c.number(`,"files":`),
		Xattrs: c.number(`,"xattrs":`), Contents: c.number(`,"contents":`), FileChunks: c.number(`,"file_chunks":`),
		Chunks: c.number(`,"chunks":`), Blobs: c.number(`,"blobs":`), BlobChunks: c.number(`,"blob_chunks":`),
	}
	m.Dumps = array(c, `},"dumps":[`, 0, func(c *cursor) DumpPart {
		part := DumpPart{c.object(), c.number(`,"plain_size":`)}
		c.word(`}`)
		return part
	})
	m.PinnedDumps = array(c, `,"pinned_dumps":[`, 0, (*cursor).wholeObject)
	c.word(`,"blobs":`)
	m.Blobs = c.objects()
	c.word(`,"pins":`)
	m.Pins = c.objects()
	m.Recipients = array(c, `,"recipients":[`, 0, (*cursor).text)
	m.Parameters = Parameters{
		Chunker: c.field(`,"parameters":{"chunker":`), ChunkMin: c.number(`,"chunk_min":`),
		ChunkAvg: c.number(`,"chunk_avg":`), ChunkMax: c.number(`,"chunk_max":`),
	}
	c.word("}}\n")
	return m, c.ok && len(c.rest) == 0 && m.validate() == nil
}

// cursor is a place in canonical JSON. After it met something else, ok is false
// and what it returns means nothing.
type cursor struct {
	rest []byte
	ok   bool
}

func (c *cursor) fail() { c.rest, c.ok = nil, false }

func (c *cursor) at(word string) bool {
	return len(c.rest) >= len(word) && string(c.rest[:len(word)]) == word
}

// word steps over what must come next.
func (c *cursor) word(word string) {
	if !c.at(word) {
		c.fail()
		return
	}
	c.rest = c.rest[len(word):]
}

func (c *cursor) null() bool {
	is := c.at("null")
	if is {
		c.word("null")
	}
	return is
}

// number reads an integer below 10^16 behind a key: valid ones are.
func (c *cursor) number(key string) (n int64) {
	c.word(key)
	i := 0
	for ; i < len(c.rest) && i < 17 && c.rest[i] >= '0' && c.rest[i] <= '9'; i++ {
		n = 10*n + int64(c.rest[i]-'0')
	}
	if i == 0 || i > 16 || i > 1 && c.rest[0] == '0' {
		c.fail()
		return 0
	}
	c.rest = c.rest[i:]
	return n
}

// field reads a string behind a key.
func (c *cursor) field(key string) string {
	c.word(key)
	return c.text()
}

func (c *cursor) text() string {
	c.word(`"`)
	text, rest, ok := bytes.Cut(c.rest, []byte(`"`))
	if !ok {
		c.fail()
		return ""
	}
	c.rest = rest
	return string(text)
}

func (c *cursor) hash() (h Hash) {
	c.word(`"`)
	digits := hex.EncodedLen(len(h))
	if len(c.rest) < digits || !h.decode(c.rest[:digits]) {
		c.fail()
		return h
	}
	c.rest = c.rest[digits:]
	c.word(`"`)
	return h
}

// name reads a Name up to its bracket.
func (c *cursor) name() Name {
	n := Name{Seq: Seq(c.number(`{"seq":`))}
	c.word(`,"sha256":`)
	n.SHA256 = c.hash()
	return n
}

// object reads an Object up to its bracket.
func (c *cursor) object() Object {
	n := c.name()
	return Object{n.Seq, n.SHA256, c.number(`,"size":`)}
}

func (c *cursor) wholeName() Name {
	n := c.name()
	c.word(`}`)
	return n
}

func (c *cursor) wholeObject() Object {
	o := c.object()
	c.word(`}`)
	return o
}

func (c *cursor) objects() (l ObjectList) {
	c.word(`{"list":`)
	if !c.null() {
		l.List = &ListRef{c.object(), c.number(`,"plain_size":`), c.number(`,"count":`)}
		c.word(`}`)
	}
	l.Add = array(c, `,"add":[`, c.elements(), (*cursor).wholeObject)
	l.Drop = array(c, `,"drop":[`, c.elements(), (*cursor).wholeName)
	c.word(`}`)
	return l
}

// elements counts the objects of the array that comes next, so that it takes no
// more memory than it needs.
func (c *cursor) elements() int {
	next, _, _ := bytes.Cut(c.rest, []byte("]"))
	return bytes.Count(next, []byte("{"))
}

// array reads the elements of an array, up to and with its bracket.
func array[T any](c *cursor, key string, size int, element func(*cursor) T) []T {
	c.word(key)
	all := make([]T, 0, size)
	for c.ok && !c.at("]") {
		if len(all) > 0 {
			c.word(",")
		}
		all = append(all, element(c))
	}
	c.word("]")
	return all
}
