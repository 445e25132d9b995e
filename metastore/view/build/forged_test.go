package build_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/dump"
	"git.eeqj.de/sneak/vaultik/metastore/metatest"
	"git.eeqj.de/sneak/vaultik/metastore/view/build"
)

// counter counts the rows of a text, so that a forgery is not found out by its
// totals already.
type counter map[dump.Table]int64

func (c counter) Insert(t dump.Table, _ []dump.Value) error { c[t]++; return nil }
func (c counter) Delete(t dump.Table, keys []int64) error   { c[t] -= int64(len(keys)); return nil }

func (c counter) totals(bytes int64) metastore.Totals {
	return metastore.Totals{
		Files: c[dump.TableFiles], Bytes: bytes, Volumes: c[dump.TableVolumes], Paths: c[dump.TablePaths],
		Xattrs: c[dump.TableXattrs], Contents: c[dump.TableContents], FileChunks: c[dump.TableFileChunks],
		Chunks: c[dump.TableChunks], Blobs: c[dump.TableBlobs], BlobChunks: c[dump.TableBlobChunks],
	}
}

// TestForgedDumpsAreRefused changes one thing of a sound dump at a time. Every
// one of them is good SQL, and the signed numbers agree.
func TestForgedDumpsAreRefused(t *testing.T) {
	const (
		c1, c2 = "X'C100000000000000000000000000000000000000000000000000000000000000'", "X'C200000000000000000000000000000000000000000000000000000000000000'"
		zeros  = "X'0000000000000000000000000000000000000000000000000000000000000000'"
		bb     = "X'BB00000000000000000000000000000000000000000000000000000000000000'"
		a      = "(3,3,'inside','complete',0,'f',420,0,0,X'726F6F74',X'726F6F74',65549,1767323045,6,0,0,0,0,1,77,2,0,0,NULL,0,1)"
		link   = "(5,5,'inside','complete',0,'l',511,0,0,X'726F6F74',X'726F6F74',1,1767323045,6,0,0,0,0,1,1000005,1,0,0,X'61',0,NULL)"
		empty  = "(6,6,'inside','complete',0,'f',420,0,0,X'726F6F74',X'726F6F74',0,1767323045,6,0,0,0,0,1,1000006,1,0,0,NULL,0,2)"
		root   = "(1,1,'implicit-parent','complete',0,'d',493,0,0,X'726F6F74',X'726F6F74',0,1767323045,6,0,0,0,0,1,1000001,1,0,0,NULL,0,NULL)"
		path6  = "(6,2,X'7A270AFF')"
		blob   = "(1," + bb + ",1,4096,1659," + zeros + ",3,0)"
	)
	// in makes row with one part of it changed.
	in := func(row, old, new string) [2]string {
		if strings.Count(row, old) == 0 {
			t.Fatalf("%q is not in %q", old, row)
		}
		return [2]string{row, strings.Replace(row, old, new, 1)}
	}
	twice := func(row string) [2]string { return [2]string{row, row + "," + row} }
	name := func(hex string) [2]string { return in(path6, "7A270AFF", hex) }
	for _, c := range []struct {
		what   string
		change [2]string
		says   string
	}{
		{"no root path", [2]string{"(1,0,X''),", ""}, "root"},
		{"a root with a name", [2]string{"(1,0,X'')", "(1,0,X'61')"}, "only the root"},
		{"a second root", [2]string{path6, path6 + ",(7,0,X'')"}, "only the root"},
		{"a root with another key", [2]string{"(1,0,X'')", "(9,0,X'')"}, "only the root"},
		{"key 1 elsewhere", [2]string{"(1,0,X'')", "(1,2,X'61')"}, "only the root"},
		{"a root that is a file", in(root, "'d'", "'f'"), "leads to a root"},
		{"a root that is a link", [2]string{root, strings.Replace(link, "(5,5", "(1,1", 1)}, "root"},
		{"no name", name(""), "1 to 255 bytes"},
		{"a name of 256 bytes", name(strings.Repeat("61", 256)), "1 to 255 bytes"},
		{"a slash", name("612F62"), "slash or a NUL"},
		{"an absolute name", name("2F"), "slash or a NUL"},
		{"a NUL", name("6100"), "slash or a NUL"},
		{"dot", name("2E"), "not a name"},
		{"dot dot", name("2E2E"), "not a name"},
		{"two of one name", name("61"), "another such row"},
		{"a path in itself", in(path6, "(6,2", "(6,6"), "in itself"},
		{"a path in a missing one", in(path6, "(6,2", "(6,9"), "not in a directory"},
		{"a path in a file", in(path6, "(6,2", "(6,3"), "not in a directory"},
		{"a path in a symbolic link", in(path6, "(6,2", "(6,5"), "not in a directory"},
		{"a path with parent 0", in(path6, "(6,2", "(6,0"), "only the root"},
		{"a negative path", in(path6, "(6,", "(-6,"), "only the root"},
		{"a path twice", twice(path6), "another such row"},
		{"a file twice", twice(empty), "another such row"},
		{"two files of one path", in(empty, "(6,6", "(6,5"), "another such row"},
		{"two files of one id", in(empty, "(6,6", "(5,6"), "another such row"},
		{"a file without path", in(empty, "(6,6", "(6,9"), "does not exist"},
		{"a file with id 0", in(empty, "(6,6", "(0,6"), "key"},
		{"a file with path 0", in(empty, "(6,6", "(6,0"), "path is 0"},
		{"an unknown role", in(a, "'inside'", "'outside'"), "role"},
		{"a file above a root", in(a, "'inside'", "'implicit-parent'"), "leads to a root"},
		{"an unknown state", in(a, "'complete'", "'fine'"), "state"},
		{"an unknown type", in(a, "'f'", "'x'"), "type"},
		{"no type", in(a, "'f'", "''"), "type"},
		{"two types", in(a, "'f'", "'fd'"), "type"},
		{"a negative errno", in(a, "'complete',0", "'complete',-1"), "errno"},
		{"more than permissions", in(a, ",420,", ",4096,"), "mode"},
		{"a negative mode", in(a, ",420,", ",-1,"), "mode"},
		{"a great uid", in(a, "420,0,0", "420,4294967296,0"), "uid"},
		{"a negative gid", in(a, "420,0,0", "420,0,-1"), "gid"},
		{"a long owner", in(a, "726F6F74", strings.Repeat("61", 1025)), "longer than"},
		{"a negative size", in(a, ",65549,", ",-1,"), "size"},
		{"a size that its content has not", in(a, ",65549,", ",65550,"), "65549 bytes"},
		{"a size above an empty content", in(empty, ",0,1767323045", ",1,1767323045"), "has 0 bytes"},
		{"a second of nanoseconds", in(a, "1767323045,6", "1767323045,1000000000"), "mtime_ns"},
		{"negative nanoseconds", in(a, "1767323045,6,0,0", "1767323045,6,0,-1"), "ctime_ns"},
		{"a missing volume", in(a, ",1,77,2", ",2,77,2"), "volume 2 does not exist"},
		{"a negative volume", in(a, ",1,77,2", ",-1,77,2"), "volume"},
		{"negative links", in(a, ",1,77,2", ",1,77,-2"), "nlink"},
		{"a great device", in(a, "77,2,0", "77,2,4294967296"), "rdev_major"},
		{"great flags", in(a, "NULL,0,1)", "NULL,4294967296,1)"), "flags"},
		{"a target of a file", in(a, "NULL,0,1)", "X'61',0,1)"), "target"},
		{"a link without target", in(link, "X'61',0", "NULL,0"), "target"},
		{"a target with NUL", in(link, "X'61',0", "X'6100',0"), "NUL"},
		{"a long target", in(link, "X'61',0", "X'"+strings.Repeat("61", 65537)+"',0"), "target"},
		{"a link with content", in(link, "0,NULL)", "0,1)"), "content"},
		{"a directory with content", in(root, "0,NULL)", "0,1)"), "content"},
		{"a file without content", in(a, "0,1)", "0,NULL)"), "no content"},
		{"a missing content", in(a, "0,1)", "0,9)"), "content does not exist"},
		{"content 0", in(a, "0,1)", "0,0)"), "not a key"},
		{"an attribute of nothing", [2]string{"xattrs VALUES(2,", "xattrs VALUES(9,"}, "file does not exist"},
		{"an attribute without name", [2]string{"X'757365722E6B'", "X''"}, "name of an extended"},
		{"an attribute with NUL", [2]string{"X'757365722E6B'", "X'757300'"}, "name of an extended"},
		{"a long attribute name", [2]string{"X'757365722E6B'", "X'" + strings.Repeat("61", 256) + "'"}, "name of an extended"},
		{"a big attribute", [2]string{"X'00FF'", "X'" + strings.Repeat("00", 65537) + "'"}, "65537 bytes"},
		{"an attribute twice", twice("(2,X'757365722E6B',X'00FF')"), "another such row"},
		{"a volume twice", twice("(1,'ext4',1,X'2F')"), "another such row"},
		{"a volume with key 0", [2]string{"(1,'ext4'", "(0,'ext4'"}, "key"},
		{"a content twice", [2]string{"(1),(2)", "(1),(2),(2)"}, "another such row"},
		{"a negative content", [2]string{"(1),(2)", "(1),(2),(-1)"}, "key"},
		{"pieces of a missing content", [2]string{"(1),(2)", "(3),(2)"}, "content does not exist"},
		{"a gap in the pieces", [2]string{"(1,65542,7,2)", "(1,65543,7,2)"}, "a piece at"},
		{"overlapping pieces", [2]string{"(1,65542,7,2)", "(1,65541,7,2)"}, "a piece at"},
		{"a piece lost at the start", [2]string{"(1,0,6,1),", ""}, "a piece at"},
		{"a piece lost in the middle", [2]string{"(1,6,65536,NULL),", ""}, "a piece at"},
		{"a piece lost at the end", [2]string{",(1,65542,7,2)", ""}, "65542 bytes"},
		{"a piece twice", twice("(1,65542,7,2)"), "a piece at"},
		{"pieces out of order", [2]string{"(1,0,6,1),(1,6,65536,NULL)", "(1,6,65536,NULL),(1,0,6,1)"}, "a piece at"},
		{"a content taken up again", [2]string{"(1,65542,7,2)", "(1,65542,7,2),(2,0,6,1),(1,0,6,1)"}, "another such row"},
		{"an empty piece", [2]string{"(1,0,6,1)", "(1,0,0,1),(1,0,6,1)"}, "length"},
		{"a negative piece", [2]string{"(1,0,6,1)", "(1,0,-6,1)"}, "length"},
		{"an offset below 0", [2]string{"(1,0,6,1)", "(1,-6,6,1)"}, "offset"},
		{"a piece past 2^63", [2]string{"(1,6,65536,NULL)", "(1,6,9223372036854775807,NULL)"}, "offset"},
		{"a piece above 16 MiB", [2]string{"(1,0,6,1)", "(1,0,16777217,1)"}, "length"},
		{"a missing chunk", [2]string{"(1,65542,7,2)", "(1,65542,7,3)"}, "chunk does not exist"},
		{"a chunk that is no key", [2]string{"(1,65542,7,2)", "(1,65542,7,0)"}, "not a key"},
		{"a chunk of another size", [2]string{c2 + ",7)", c2 + ",8)"}, "another size"},
		{"a short hash", [2]string{c1, "X'C1'"}, "instead of 32"},
		{"a long hash", [2]string{c1, c1[:len(c1)-1] + "00'"}, "instead of 32"},
		{"an empty chunk", [2]string{c1 + ",6)", c1 + ",0)"}, "size"},
		{"a chunk above 16 MiB", [2]string{c1 + ",6)", c1 + ",16777217)"}, "size"},
		{"a chunk twice", [2]string{"(2," + c2, "(1," + c2}, "another such row"},
		{"a chunk with key 0", [2]string{"(2," + c2, "(0," + c2}, "key"},
		{"a blob twice", twice(blob), "another such row"},
		{"a blob with a short hash", in(blob, bb, "X'BB'"), "instead of 32"},
		{"a blob of run 0", in(blob, ",1,4096", ",0,4096"), "seq"},
		{"a blob above 1 GiB", in(blob, "4096", "1073741825"), "size"},
		{"a blob below its header", in(blob, "4096", "1690"), "size"},
		{"a blob without header", in(blob, "1659", "0"), "header"},
		{"a blob with a great header", in(blob, "4096,1659", "99999,65537"), "header"},
		{"a blob with short recipients", in(blob, zeros, "X'00'"), "recipients"},
		{"a negative upload", in(blob, "3,0)", "3,-1)"), "upload_ms"},
		{"a frame behind the blob", [2]string{"(2,1,24,19,6,7)", "(2,1,2387,19,6,7)"}, "ends before"},
		{"a frame that is longer than the blob", [2]string{"(2,1,24,19,6,7)", "(2,1,24,2382,6,7)"}, "ends before"},
		{"a frame at a negative place", [2]string{"(2,1,24,19,6,7)", "(2,1,-1,19,6,7)"}, "frame_offset"},
		{"an empty frame", [2]string{"(2,1,24,19,6,7)", "(2,1,24,0,6,7)"}, "frame_length"},
		{"a frame past 2^63", [2]string{"(2,1,24,19,6,7)", "(2,1,24,9223372036854775807,6,7)"}, "frame_length"},
		{"a chunk behind the greatest frame", [2]string{"(2,1,24,19,6,7)", "(2,1,24,19,16777210,7)"}, "offset"},
		{"a chunk at a negative place", [2]string{"(2,1,24,19,6,7)", "(2,1,24,19,-6,7)"}, "offset"},
		{"a place of another size", [2]string{"(2,1,24,19,6,7)", "(2,1,24,19,6,8)"}, "another size"},
		{"a place in a missing blob", [2]string{"(2,1,24,19,6,7)", "(2,9,24,19,6,7)"}, "blob does not exist"},
		{"a place of a missing chunk", [2]string{"(2,1,24,19,6,7)", "(3,1,24,19,6,7)"}, "chunk does not exist"},
		{"two places of one chunk", twice("(2,1,24,19,6,7)"), "another such row"},
		{"another snapshot", [2]string{"'host-20260102-030405Z'", "'host-20260102-030406Z'"}, "column id"},
		{"another writer", [2]string{"'host','default'", "'hos','default'"}, "column writer"},
		{"another set", [2]string{"'host','default'", "'host','other'"}, "column set_name"},
		{"another run", [2]string{"VALUES(1,'host-", "VALUES(2,'host-"}, "column seq"},
		{"a short secret", [2]string{"4194304," + zeros, "4194304,X'00'"}, "chunk_secret"},
		{"a chunker's great limit", [2]string{"4194304,", "16777217,"}, "chunk_max"},
		{"a list without end", [2]string{"X'2F73727600'", "X'2F737276'"}, "roots"},
		{"a finish with many nanoseconds", [2]string{"1767323046,5", "1767323046,1000000000"}, "finished_ns"},
		{"negative statistics", [2]string{",6,131098,4096)", ",-6,131098,4096)"}, "new_files"},
	} {
		t.Run(c.what, func(t *testing.T) {
			text, want := metatest.Dump(metatest.Tiny())
			if n := strings.Count(string(text), c.change[0]); n != 1 {
				t.Fatalf("%q is there %d times", c.change[0], n)
			}
			forged := strings.Replace(string(text), c.change[0], c.change[1], 1)
			rows := counter{}
			if err := dump.Parse(strings.NewReader(forged), dump.Full, 1, rows); err != nil {
				t.Fatalf("it is outside of the grammar already: %v", err)
			}
			want.Totals = rows.totals(want.Totals.Bytes)
			_, err := built(t, want, forged)
			if !errors.Is(err, dump.ErrBad) || !strings.Contains(fmt.Sprint(err), c.says) {
				t.Errorf("it says %v", err)
			}
		})
	}
}

func TestASoundDumpMustBeTheSignedOne(t *testing.T) {
	text, want := metatest.Dump(metatest.Tiny())
	for name, n := range map[string]*int64{
		"files": &want.Totals.Files, "bytes": &want.Totals.Bytes, "volumes": &want.Totals.Volumes, "paths": &want.Totals.Paths,
		"xattrs": &want.Totals.Xattrs, "contents": &want.Totals.Contents, "file_chunks": &want.Totals.FileChunks,
		"chunks": &want.Totals.Chunks, "blobs": &want.Totals.Blobs, "blob_chunks": &want.Totals.BlobChunks,
	} {
		for _, by := range []int64{-1, 1} {
			*n += by
			if _, err := built(t, want, string(text)); !errors.Is(err, dump.ErrBad) || !strings.Contains(fmt.Sprint(err), " "+name+",") {
				t.Errorf("%d %s: %v", *n, name, err)
			}
			*n -= by
		}
	}
	if _, err := built(t, want, string(text)); err != nil {
		t.Error(err)
	}
}

// dump puts rows into a text of their own; rows are "table(values)".
func part(header string, statements ...string) string {
	schema := ""
	if strings.HasSuffix(header, "full 1") {
		schema = dump.Schema()
	}
	return "-- vaultik dump 1 " + header + "\nBEGIN;\n" + schema + strings.Join(statements, "") + "COMMIT;\n"
}

func TestUnrelatedDirectoriesInACircleAreRefused(t *testing.T) {
	text, want := metatest.Dump(metatest.Tiny())
	d := "'inside','complete',0,'d',493,0,0,X'',X'',0,0,0,0,0,0,0,1,5,1,0,0,NULL,0,NULL)"
	second := part("full 2", "INSERT INTO paths VALUES(7,8,X'61'),(8,7,X'62');\n",
		"INSERT INTO files VALUES(7,7,"+d+",(8,8,"+d+";\n")
	want.Totals.Paths += 2
	want.Totals.Files += 2
	if _, err := built(t, want, string(text), second); !errors.Is(err, dump.ErrBad) || !strings.Contains(err.Error(), "in one another") {
		t.Error(err)
	}
}

func TestTreesMayBeDeepButNotTooDeep(t *testing.T) {
	for _, c := range []struct {
		depth int
		sound bool
	}{{4096, true}, {4097, false}} {
		text, want := metatest.Dump(metatest.Tree{Entries: []metatest.Entry{metatest.Dir("/")}})
		d := "'inside','complete',0,'d',493,0,0,X'',X'',0,0,0,0,0,0,0,1,0,1,0,0,NULL,0,NULL)"
		statements := []string{}
		for i := range c.depth {
			statements = append(statements,
				fmt.Sprintf("INSERT INTO paths VALUES(%d,%d,X'61');\n", i+2, i+1),
				fmt.Sprintf("INSERT INTO files VALUES(%d,%d,%s;\n", i+2, i+2, d))
		}
		want.Totals.Paths += int64(c.depth)
		want.Totals.Files += int64(c.depth)
		_, err := built(t, want, string(text), part("full 2", statements...))
		if c.sound && err != nil || !c.sound && (!errors.Is(err, dump.ErrBad) || !strings.Contains(err.Error(), "deeper")) {
			t.Errorf("%d directories: %v", c.depth, err)
		}
	}
}

func TestADifferentialReplacesWhatItNames(t *testing.T) {
	text, want := metatest.Dump(metatest.Tiny())
	base := string(text)
	first, rest, _ := strings.Cut(base, "INSERT INTO chunks ")
	second := "INSERT INTO chunks " + rest // the same dump in two parts
	first += "COMMIT;\n"
	second = "-- vaultik dump 1 full 2\nBEGIN;\n" + second
	snapshot := base[strings.Index(base, "INSERT INTO snapshots"):strings.Index(base, "INSERT INTO volumes")]
	difference := part("differential 1",
		"DELETE FROM snapshots WHERE seq IN (1);\n", strings.Replace(snapshot, "VALUES(1,", "VALUES(2,", 1),
		"DELETE FROM paths WHERE id IN (6);\n", "INSERT INTO paths VALUES(7,2,X'7A270AFF');\n",
		"DELETE FROM files WHERE id IN (3,6);\n",
		// /srv/a has another mode, and its piece came again in another blob.
		"INSERT INTO files VALUES(9,3,'inside','complete',0,'f',256,0,0,X'',X'',6,0,0,0,0,0,0,1,78,1,0,0,NULL,0,3),"+
			"(10,7,'inside','unreadable',13,'f',0,0,0,X'',X'',5,0,0,0,0,0,0,0,0,0,0,0,NULL,0,NULL);\n",
		"DELETE FROM contents WHERE id IN (2);\n", "INSERT INTO contents VALUES(3);\n",
		"INSERT INTO file_chunks VALUES(3,0,6,1);\n",
		"INSERT INTO blobs VALUES(2,X'CC00000000000000000000000000000000000000000000000000000000000000',2,5000,300,X'"+strings.Repeat("00", 32)+"',3,0);\n",
		"DELETE FROM blob_chunks WHERE chunk IN (1);\n")
	more := part("differential 2", "INSERT INTO blob_chunks VALUES(1,2,9,9,0,6);\n")
	want.Seq = 2
	want.Totals.Bytes = 6 + 65549
	want.Totals.FileChunks++
	want.Totals.Blobs++
	v, err := built(t, want, first, second, difference, more)
	if err != nil {
		t.Fatal(err)
	}
	shown, order := metatest.Walk(t, v)
	if diff := cmp.Diff([]string{"/", "/srv", "/srv/a", "/srv/b", "/srv/l", "/srv/z'\n\xff"}, order); diff != "" {
		t.Error(diff)
	}
	if a, b, z := shown["/srv/a"], shown["/srv/b"], shown["/srv/z'\n\xff"]; a.Mode != 0o400 || a.Size != 6 || a.Ino == b.Ino ||
		z.State != metastore.StateUnreadable || z.Errno != 13 || z.Size != 5 {
		t.Errorf("%+v\n%+v\n%+v", a, b, z)
	}
	x, err := v.Extents(t.Context(), shown["/srv/a"], 0, 6)
	if err != nil || len(x) != 1 || x[0].Blob.Seq != 2 || x[0].FrameOffset != 9 {
		t.Errorf("%+v, %v", x, err)
	}

	for name, texts := range map[string][]string{
		"no parts":              {},
		"the second part alone": {second},
		"parts out of order":    {second, first},
		"a part twice":          {first, first},
		"a part missing":        {first, difference, more},
		"a differential alone":  {difference, more},
		"its second part alone": {first, second, more},
		"a full part after it":  {first, second, difference, second},
		"its part missing":      {first, second, difference},
		"two differentials":     {first, second, difference, difference},
	} {
		if _, err := built(t, want, texts...); !errors.Is(err, dump.ErrBad) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAPartMustBeTheOneThatIsNamed(t *testing.T) {
	text, want := metatest.Dump(metatest.Tiny())
	for _, c := range []struct {
		kind  dump.PartKind
		n     int
		sound bool
	}{
		{dump.Full, 0, true}, {dump.Full, 1, true}, {dump.Full, 2, false}, {dump.Differential, 1, false},
	} {
		p := metatest.Parts(string(text))
		p[0].Kind, p[0].N = c.kind, c.n
		err := build.View(t.Context(), filepath.Join(t.TempDir(), "v"), p, want)
		if c.sound && err != nil || !c.sound && !errors.Is(err, dump.ErrBad) {
			t.Errorf("%s part %d: %v", c.kind, c.n, err)
		}
	}
}

func TestAPartThatCannotBeOpenedIsNoBadDump(t *testing.T) {
	_, want := metatest.Dump(metatest.Tiny())
	p := []build.Part{{Open: func(context.Context) (io.ReadCloser, error) { return nil, fs.ErrPermission }}}
	err := build.View(t.Context(), filepath.Join(t.TempDir(), "v"), p, want)
	if !errors.Is(err, fs.ErrPermission) || errors.Is(err, dump.ErrBad) {
		t.Error(err)
	}
}
