package fstest

import (
	"context"
	"io"
	"strings"

	"filippo.io/age"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// Forge replaces a snapshot by one whose dump says something else, signed by the
// writer all the same: what a machine in the wrong hands can do, or a program
// with a mistake. text changes the SQL text of the dump's only part, manifest
// the manifest; both may be nil. Later snapshots of the writer are not to be.
func (w *World) Forge(m *remote.Manifest, text func(string) string, manifest func(*remote.Manifest)) *remote.Manifest {
	w.t.Helper()
	forged := *m
	if text != nil {
		if len(m.Dumps) != 1 {
			w.t.Fatalf("the dump has %d parts", len(m.Dumps))
		}
		forged.Dumps = []remote.DumpPart{w.reword(m, text)}
	}
	if manifest != nil {
		manifest(&forged)
	}
	object, err := forged.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	n := w.writers[m.Writer]
	key := remote.ManifestKey(m.Writer, m.Seq)
	for _, k := range []string{key, remote.SignatureKey(key)} {
		if err := w.Store.Delete(context.Background(), k); err != nil {
			w.t.Fatal(err)
		}
	}
	w.put(remote.SignatureKey(key), n.signer.Sign(object, remote.ManifestComment(m.Writer, m.Seq)))
	w.put(key, object)
	hash := remote.Sum(object)
	n.previous = &hash
	return &forged
}

func (w *World) reword(m *remote.Manifest, change func(string) string) remote.DumpPart {
	w.t.Helper()
	r, err := w.dump(context.Background(), m.Writer, m.Dumps[0])
	if err != nil {
		w.t.Fatal(err)
	}
	defer r.Close()
	before, err := io.ReadAll(r)
	if err != nil {
		w.t.Fatal(err)
	}
	after := change(string(before))
	if after == string(before) {
		w.t.Fatal("nothing is forged")
	}
	p, err := seal.NewPart([]age.Recipient{w.Identity.Recipient()}, seal.Fastest)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := io.Copy(p, strings.NewReader(after)); err != nil {
		w.t.Fatal(err)
	}
	object, err := p.Close()
	if err != nil {
		w.t.Fatal(err)
	}
	o := remote.Object{Seq: m.Seq, SHA256: remote.Sum(object), Size: int64(len(object))}
	w.put(remote.DumpKey(m.Writer, m.Seq, o.SHA256), object)
	return remote.DumpPart{Object: o, PlainSize: int64(len(after))}
}
