package prune_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/dir"
	"git.eeqj.de/sneak/vaultik/remote/prune"
)

// years writes a store of writers with many runs: the first stores as many
// blobs as every snapshot has, each later one replaces a few of them. Lists are
// made as a writer makes them. Blobs and dumps have their size, but are one
// hole; what counts here is their number. If the folder has a store of these years already, it is
// taken as it is.
func years(b *testing.B, folder string, writers, runs, blobs, changed int) {
	b.Helper()
	mark := filepath.Join(folder, fmt.Sprintf("years-%d-%d-%d-%d", writers, runs, blobs, changed))
	if _, err := os.Stat(mark); err == nil {
		return
	}
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for w := range writers {
		g.Go(func() error { return year(folder, fmt.Sprintf("writer-%d", w+1), runs, blobs, changed) })
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(mark, nil, 0o644); err != nil {
		b.Fatal(err)
	}
}

const listAbove = 128 // as in package backup

func year(folder, writer string, runs, blobs, changed int) error {
	put := func(key string, body []byte) error {
		path := filepath.Join(folder, filepath.FromSlash(key))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		return os.WriteFile(path, body, 0o644)
	}
	hole := func(key string, size int64) error {
		if err := put(key, nil); err != nil {
			return err
		}
		return os.Truncate(filepath.Join(folder, filepath.FromSlash(key)), size)
	}
	signer := key(writer)
	c := remote.Certificate{N: 1, Key: signer.Public(), Role: remote.RoleWriter, Writer: writer, From: 1}
	at := remote.SignerKey(writer, 1)
	if err := put(at, c.Key.File()); err != nil {
		return err
	}
	if err := put(remote.SignatureKey(at), remote.SignCertificate(key("root"), c)); err != nil {
		return err
	}
	var fresh uint64
	random := func(seq remote.Seq, size int64) remote.Object { // looks like one; the same in every year
		fresh++
		return remote.Object{Seq: seq, SHA256: remote.Sum(binary.BigEndian.AppendUint64([]byte(writer), fresh)), Size: size}
	}
	var all, listed []remote.Object
	var list *remote.ListRef
	var base remote.Object
	var previous *remote.Hash
	for seq := remote.Seq(1); seq <= remote.Seq(runs); seq++ {
		n := changed
		if seq == 1 {
			n = blobs
		}
		// What is replaced lies anywhere, older blobs more often than new ones.
		for i := range n {
			o := random(seq, 32<<20)
			if err := hole(remote.BlobKey(writer, seq, o.SHA256), o.Size); err != nil {
				return err
			}
			if seq == 1 {
				all = append(all, o)
				continue
			}
			at := int(binary.BigEndian.Uint32(o.SHA256[:4])) % (blobs - i)
			all = append(slices.Delete(all, at, at+1), o)
		}
		slices.SortFunc(all, func(a, b remote.Object) int { return remote.CompareNames(a.Name(), b.Name()) })
		set := remote.Diff(list, listed, all)
		if len(set.Add)+len(set.Drop) > listAbove {
			body, plain := remote.EncodeList(all)
			list = &remote.ListRef{Object: remote.Object{Seq: seq, SHA256: remote.Sum(body), Size: int64(len(body))}, PlainSize: plain, Count: int64(len(all))}
			if err := put(remote.ListKey(writer, seq, list.SHA256), body); err != nil {
				return err
			}
			listed = slices.Clone(all)
			set = remote.Diff(list, listed, all)
		}
		dump := random(seq, 20000)
		if seq%40 == 1 {
			base = dump
		}
		if err := hole(remote.DumpKey(writer, seq, dump.SHA256), dump.Size); err != nil {
			return err
		}
		dumps := []remote.DumpPart{{Object: base, PlainSize: 50000}}
		if base != dump {
			dumps = append(dumps, remote.DumpPart{Object: dump, PlainSize: 50000})
		}
		when := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(seq) * time.Hour).Format(time.RFC3339)
		m := &remote.Manifest{
			Format: 1, Type: remote.TypeManifest, Writer: writer, Seq: seq, Previous: previous,
			Snapshot: fmt.Sprintf("%s-20260102-030405Z-%d", writer, seq+1), Set: "default",
			Started: when, Finished: when, Version: "1.0.0",
			Totals:     remote.Totals{Files: 1e6, Bytes: 64 << 30, NewFiles: 100, NewBytes: 200 << 20, StoredBytes: 160 << 20},
			Rows:       remote.Rows{Volumes: 1, Paths: 1e6, Files: 1e6, Contents: 9e5, FileChunks: 1e6, Chunks: 9e5, Blobs: int64(blobs), BlobChunks: 9e5},
			Dumps:      dumps,
			Blobs:      set,
			Recipients: []string{remote.Sum([]byte("a recipient")).String()},
			Parameters: remote.Parameters{Chunker: "fastcdc", ChunkMin: 256 << 10, ChunkAvg: 1 << 20, ChunkMax: 4 << 20},
		}
		object, err := m.Encode()
		if err != nil {
			return err
		}
		hash := remote.Sum(object)
		previous = &hash
		at := remote.ManifestKey(writer, seq)
		if err := put(remote.SignatureKey(at), signer.Sign(object, remote.ManifestComment(writer, seq))); err != nil {
			return err
		}
		if err := put(at, object); err != nil {
			return err
		}
	}
	return nil
}

// BenchmarkYears plans the pruning of three machines. VAULTIK_YEARS names a
// folder in which a store is made and kept, of 10,000 runs each, every hour of a
// year; without it they have 300.
func BenchmarkYears(b *testing.B) {
	runs, folder := 10_000, os.Getenv("VAULTIK_YEARS")
	if folder == "" {
		runs, folder = 300, b.TempDir()
	}
	years(b, folder, 3, runs, 2000, 5)
	s, err := dir.Open(folder)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	b.ReportAllocs()
	peak := watchHeap()
	for b.Loop() {
		var live int64
		for w := range 3 {
			p, err := prune.Look(context.Background(), prune.Options{Store: s, Root: key("root").Public()}, fmt.Sprintf("writer-%d", w+1))
			if err != nil || p.Stopped != nil || p.Snapshots != runs || p.Lost > 0 || len(p.Garbage) > 0 {
				b.Fatalf("%+v, %v", p, err)
			}
			live += p.Stays.Blobs.Objects
		}
		if want := int64(3 * (2000 + 5*(runs-1))); live != want {
			b.Fatalf("%d blobs are needed, want %d", live, want)
		}
	}
	b.ReportMetric(float64(peak())/(1<<20), "peak-MiB")
}

// watchHeap returns how much memory the process had from the system for its
// heap, at most, until it is called.
func watchHeap() func() uint64 {
	stop := make(chan struct{})
	var once sync.Once
	var most uint64
	var g errgroup.Group
	g.Go(func() error {
		var m runtime.MemStats
		for {
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapInuse)
			select {
			case <-stop:
				return nil
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	return func() uint64 {
		once.Do(func() { close(stop) })
		_ = g.Wait()
		return most
	}
}
