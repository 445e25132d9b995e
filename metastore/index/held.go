package index

import (
	"git.eeqj.de/sneak/vaultik/metastore/internal/sqlite"
)

// bulks are the tables that a run adds many rows to.
type bulks struct {
	paths, files, contents, fileChunks, blobChunks, chunks, prefixes sqlite.Bulk
}

func newBulks() *bulks {
	return &bulks{
		paths:      sqlite.NewBulk("paths", 3, " ON CONFLICT DO NOTHING"),
		files:      sqlite.NewBulk("files (id, set_id, path, first_run, end_run, gap, recheck, xattrs, "+fileColumns+")", 32, ""),
		contents:   sqlite.NewBulk("contents", 2, ""),
		fileChunks: sqlite.NewBulk("file_chunks", 4, ""),
		blobChunks: sqlite.NewBulk("blob_chunks", 6, " ON CONFLICT DO NOTHING"),
		chunks:     sqlite.NewBulk("chunks", 3, ""),
		prefixes:   sqlite.NewBulk("prefixes", 2, ""),
	}
}

func (b *bulks) all() []*sqlite.Bulk {
	return []*sqlite.Bulk{&b.paths, &b.files, &b.contents, &b.fileChunks, &b.blobChunks, &b.chunks, &b.prefixes}
}
