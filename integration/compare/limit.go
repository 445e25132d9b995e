package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"filippo.io/age"
	chunkers "github.com/PlakarKorp/go-cdc-chunkers"
	_ "github.com/PlakarKorp/go-cdc-chunkers/chunkers/fastcdc" // the algorithm that vaultik cuts with
	"golang.org/x/sync/errgroup"
)

// limit does what any backup in vaultik's format has to do with bytes that do
// not compress, on every core, and nothing else: it reads them, cuts them into
// chunks, hashes each, encrypts all, hashes the result and throws it away.
func limit(ctx context.Context, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	n := int64(runtime.GOMAXPROCS(0))
	part := (info.Size() + n - 1) / n
	g, ctx := errgroup.WithContext(ctx)
	for i := range n {
		g.Go(func() error { return limitPart(ctx, io.NewSectionReader(f, i*part, part), identity.Recipient()) })
	}
	return g.Wait()
}

func limitPart(ctx context.Context, r io.Reader, to age.Recipient) error {
	c, err := chunkers.NewChunker("fastcdc-v1.0.0", r, &chunkers.ChunkerOpts{
		MinSize: 256 << 10, NormalSize: 1 << 20, MaxSize: 4 << 20, Key: make([]byte, 32),
	})
	if err != nil {
		return fmt.Errorf("cut: %w", err)
	}
	w, err := age.Encrypt(sha256.New(), to)
	if err != nil {
		return fmt.Errorf("encrypt: %w", err)
	}
	for ctx.Err() == nil {
		chunk, err := c.Next()
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("cut: %w", err)
		}
		sha256.Sum256(chunk)
		if _, err := w.Write(chunk); err != nil {
			return fmt.Errorf("encrypt: %w", err)
		}
		if err != nil {
			return w.Close()
		}
	}
	return ctx.Err()
}
