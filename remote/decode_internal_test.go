package remote

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Both ways to read a manifest must agree on every text, or one of them would
// accept what the other refuses.
func FuzzBothWaysToReadAManifestAgree(f *testing.F) {
	m := &Manifest{
		Format: 1, Type: TypeManifest, Writer: "host", Seq: 3, Previous: &Hash{1}, Snapshot: "host-20260102-030405Z", Set: "default", Tags: []string{"a]{b", "grün <&>"},
		Started: "2026-01-02T03:04:05Z", Finished: "2026-01-02T03:05:00Z", Version: "1.0[0]{}",
		Dumps: []DumpPart{{Object{3, Hash{2}, 7}, 9}}, Recipients: []string{Hash{3}.String()},
		Blobs: ObjectList{
			List: &ListRef{Object{1, Hash{4}, 100}, 200, 3},
			Add:  []Object{{2, Hash{5}, 1 << 30}, {3, Hash{6}, 1}}, Drop: []Name{{1, Hash{7}}},
		},
		Pins:       ObjectList{Add: []Object{{1, Hash{7}, 5}}},
		Parameters: Parameters{"fastcdc", 1, 2, 3},
	}
	plain := m.plain()
	f.Add(plain)
	for _, change := range [][2]string{
		{`"add":[`, `"add": [`}, {`"add":[{`, `"add":[,{`}, {`"size":1}]`, `"size":1},]`}, {`"size":1}]`, `"size":01}]`}, {`"size":1}]`, `"size":1.0}]`},
		{`"size":1}]`, `"size":-1}]`}, {`"size":1}]`, `"size":1,"size":1}]`}, {`"size":1}]`, `"size":99999999999999999999}]`}, {`"seq":2,"sha256":"05`, `"sha256":"05`},
		{`"05`, `"0A`}, {`"drop":[]`, `"drop":null`}, {`"add":[`, `"add":[],"add":[`}, {`1.0[0]{}`, `\"add\":[`}, {`1.0[0]{}`, `add:[`},
		{`"a]{b",`, ``}, {`"a]{b",`, `"a]{b"`}, {`a]{b`, `a]\\b`}, {`<&>`, `\u003c&>`}, {`grün`, "gr\xff"}, {`["a]{b","grün <&>"]`, `null`},
		{`"previous":"01`, `"previous":"0`}, {`"list":{`, `"list":null,"was":{`}, {`"plain_size":9`, `"plain_size":09`}, {`"chunk_max":3`, `"chunk_max":3,"x":1`},
		{`"files":0`, `"files":-0`}, {`"bytes":0`, `"bytes":9007199254740992`}, {`"recipients":["`, `"recipients":[""," `}, {"}\n", "}"}, {"}\n", "}\n\n"},
		{`"format":1`, `"format":2`}, {`"requires":[]`, `"requires":["x"]`}, {`"seq":2,`, `"seq":9,`}, {"}\n", "} \n"}, {`},{`, `}{`}, {`"pins":{`, `"Pins":{`},
	} {
		changed := bytes.Replace(plain, []byte(change[0]), []byte(change[1]), 1)
		if bytes.Equal(changed, plain) {
			f.Fatalf("nothing changes with %q", change)
		}
		f.Add(changed)
	}
	if _, ok := decodePlain(plain); !ok {
		f.Fatal("the plain manifest is not read the plain way")
	}
	f.Fuzz(func(t *testing.T, plain []byte) {
		fast, ok := decodePlain(plain)
		slow := new(Manifest)
		err := decode(plain, slow, slow.plain, slow.validate)
		if ok != (err == nil) {
			t.Fatalf("read the plain way: %v, by encoding/json: %v", ok, err)
		}
		if ok {
			if d := cmp.Diff(slow, fast); d != "" {
				t.Error(d)
			}
		}
	})
}
