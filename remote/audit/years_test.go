package audit_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/audit"
	"git.eeqj.de/sneak/vaultik/remote/dir"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

// However many snapshots share a list, it is fetched once; and nothing else is
// but what is signed.
func TestASharedListIsFetchedOnce(t *testing.T) {
	w := newWorld(t)
	counting := storetest.NewCounting(w)
	if _, found := w.audit(counting, quick); len(found) > 0 {
		t.Errorf("found %q", lines(found))
	}
	read := counting.KeysRead()
	lists := slices.DeleteFunc(slices.Clone(read), func(k string) bool { return k != listKey() })
	if len(lists) != 1 || len(read) != 1+2+2*5 || counting.Count(storetest.OpStat).Calls != 0 {
		t.Errorf("read %q", read)
	}
}

// hourly is a writer whose runs each drop the oldest few blobs of a full set
// and add as many.
type hourly struct {
	folder, writer string
	signer         remote.SigningKey
	fresh          int
}

// object puts one whose bytes nobody reads: a hole.
func (h *hourly) object(kind remote.Kind, seq remote.Seq, size int64) (remote.Object, error) {
	h.fresh++
	o := remote.Object{Seq: seq, SHA256: remote.Sum(fmt.Append(nil, h.writer, h.fresh)), Size: size}
	path := h.path(remote.Key{Writer: h.writer, Kind: kind, Seq: seq, Hash: o.SHA256}.String())
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return o, err
	}
	f, err := os.Create(path)
	if err != nil {
		return o, err
	}
	defer f.Close()
	return o, f.Truncate(size)
}

func (h *hourly) path(key string) string { return filepath.Join(h.folder, filepath.FromSlash(key)) }

// sign puts an object and its signature.
func (h *hourly) sign(key string, object, signature []byte) error {
	if err := os.MkdirAll(filepath.Dir(h.path(key)), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(h.path(key), object, 0o644); err != nil {
		return err
	}
	return os.WriteFile(h.path(remote.SignatureKey(key)), signature, 0o644)
}

func (h *hourly) write(b *testing.B, runs, blobs, changed int) {
	b.Helper()
	check := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	c := remote.Certificate{N: 1, Key: h.signer.Public(), Role: remote.RoleWriter, Writer: h.writer, From: 1}
	check(h.sign(remote.SignerKey(h.writer, 1), c.Key.File(), remote.SignCertificate(key(b, "root"), c)))
	var set, listed []remote.Object
	var ref *remote.ListRef
	var previous *remote.Hash
	for seq := remote.Seq(1); seq <= remote.Seq(runs); seq++ {
		grow := changed
		if seq == 1 {
			grow = blobs
		}
		set = slices.Clone(set[max(0, len(set)+grow-blobs):])
		for range grow {
			o, err := h.object(remote.KindBlob, seq, 32<<20)
			check(err)
			set = append(set, o)
		}
		dump, err := h.object(remote.KindDump, seq, 20_000)
		check(err)
		diff := remote.Diff(ref, listed, set)
		if len(diff.Add)+len(diff.Drop) > 128 {
			body, plain := remote.EncodeList(set)
			o := remote.Object{Seq: seq, SHA256: remote.Sum(body), Size: int64(len(body))}
			check(os.WriteFile(h.path(remote.ListKey(h.writer, seq, o.SHA256)), body, 0o644))
			ref, listed = &remote.ListRef{Object: o, PlainSize: plain, Count: int64(len(set))}, set
			diff = remote.Diff(ref, listed, set)
		}
		at := time.Date(2025, 1, 1, int(seq), 0, 0, 0, time.UTC)
		m := &remote.Manifest{
			Format: remote.FormatVersion, Type: remote.TypeManifest, Writer: h.writer, Seq: seq, Previous: previous,
			Snapshot: h.writer + "-" + at.Format("20060102-150405Z"), Set: "home",
			Started: at.Format(time.RFC3339), Finished: at.Format(time.RFC3339), Version: "1.0.0",
			Dumps: []remote.DumpPart{{Object: dump, PlainSize: 90_000}}, Blobs: diff,
			Recipients: []string{remote.Sum([]byte("a recipient")).String()},
			Parameters: remote.Parameters{Chunker: "fastcdc", ChunkMin: 256 << 10, ChunkAvg: 1 << 20, ChunkMax: 4 << 20},
		}
		object, err := m.Encode()
		check(err)
		hash := remote.Sum(object)
		previous = &hash
		check(h.sign(remote.ManifestKey(h.writer, seq), object, h.signer.Sign(object, remote.ManifestComment(h.writer, seq))))
	}
}

// BenchmarkQuick looks at three machines that were backed up every hour for
// more than a year: 10,000 snapshots each, of 2,000 blobs, most runs changing
// five. VAULTIK_AUDIT_YEARS names a folder that keeps the store for next time.
func BenchmarkQuick(b *testing.B) {
	runs, folder := 10_000, os.Getenv("VAULTIK_AUDIT_YEARS")
	if folder == "" {
		runs, folder = 300, b.TempDir()
	}
	writers := []string{"ann", "bob", "eve"}
	for _, writer := range writers {
		h := hourly{folder: folder, writer: writer, signer: key(b, writer)}
		if _, err := os.Stat(h.path(remote.ManifestKey(writer, remote.Seq(runs)))); err != nil {
			h.write(b, runs, 2000, 5)
		}
	}
	s, err := dir.Open(folder)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for b.Loop() {
		result, err := audit.Run(b.Context(), audit.Options{
			Store: s, Root: key(b, "root").Public(), Writers: writers,
			Report: func(f audit.Finding) { b.Errorf("found %s", line(f)) },
		})
		lists := result.Named.Objects - int64(3*runs) - int64(3*(2000+5*(runs-1)))
		if err != nil || result.Snapshots != 3*runs || lists < 3 || lists > int64(runs) {
			b.Fatalf("%+v, %v", result, err)
		}
	}
}
