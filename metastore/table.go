package metastore

import _ "embed" // dump.sql

// dumpSchema is the exact schema text of a dump, one CREATE TABLE a line.
//
//go:embed dump.sql
var dumpSchema string

// Table is a table of a dump, in the order in which a dump has them.
type Table uint8

// The tables of a dump.
const (
	TableSnapshots Table = iota
	TableVolumes
	TablePaths
	TableFiles
	TableXattrs
	TableContents
	TableFileChunks
	TableChunks
	TableBlobs
	TableBlobChunks

	tableCount
)

// Kind is the kind of a value.
type Kind uint8

// The kinds of values that a dump can hold.
const (
	Null Kind = iota
	Integer
	Text // printable ASCII without quote and backslash
	Bytes
)

// Value is one value of a row.
type Value struct {
	Kind  Kind
	Int   int64  // of an Integer
	Bytes []byte // of a Text or Bytes
}

// column is what a dump's schema says about a column.
type column struct {
	name     string
	kind     Kind
	nullable bool
}

func integer(name string) column { return column{name, Integer, false} }
func text(name string) column    { return column{name, Text, false} }
func bytesOf(name string) column { return column{name, Bytes, false} }
func orNull(c column) column     { c.nullable = true; return c }

// table is what a dump's schema says about a table. The first column is the
// key that a differential dump's DELETE names.
type table struct {
	name    string
	columns []column
}

// tables says what dump.sql says; a test compares them.
var tables = [tableCount]table{
	TableSnapshots: {"snapshots", []column{
		integer("seq"), text("id"), text("writer"), text("set_name"), bytesOf("hostname"),
		integer("started_s"), integer("started_ns"), integer("finished_s"), integer("finished_ns"),
		text("version"), text("revision"), bytesOf("roots"), bytesOf("excludes"), bytesOf("tags"),
		text("chunker"), integer("chunk_min"), integer("chunk_avg"), integer("chunk_max"), bytesOf("chunk_secret"),
		integer("new_files"), integer("new_bytes"), integer("stored_bytes"),
	}},
	TableVolumes: {"volumes", []column{
		integer("id"), text("fstype"), integer("fsid"), bytesOf("root"),
	}},
	TablePaths: {"paths", []column{
		integer("id"), integer("parent"), bytesOf("name"),
	}},
	TableFiles: {"files", []column{
		integer("id"), integer("path"), text("role"), text("state"), integer("errno"), text("type"),
		integer("mode"), integer("uid"), integer("gid"), bytesOf("user"), bytesOf("group"), integer("size"),
		integer("mtime_s"), integer("mtime_ns"), integer("ctime_s"), integer("ctime_ns"),
		integer("btime_s"), integer("btime_ns"),
		integer("volume"), integer("inode"), integer("nlink"), integer("rdev_major"), integer("rdev_minor"),
		orNull(bytesOf("target")), integer("flags"), orNull(integer("content")),
	}},
	TableXattrs: {"xattrs", []column{
		integer("file"), bytesOf("name"), bytesOf("value"),
	}},
	TableContents: {"contents", []column{
		integer("id"),
	}},
	TableFileChunks: {"file_chunks", []column{
		integer("content"), integer("offset"), integer("length"), orNull(integer("chunk")),
	}},
	TableChunks: {"chunks", []column{
		integer("id"), bytesOf("hash"), integer("size"),
	}},
	TableBlobs: {"blobs", []column{
		integer("id"), bytesOf("hash"), integer("seq"), integer("size"), integer("header"),
		bytesOf("recipients"), integer("level"), integer("upload_ms"),
	}},
	TableBlobChunks: {"blob_chunks", []column{
		integer("chunk"), integer("blob"), integer("frame_offset"), integer("frame_length"),
		integer("offset"), integer("length"),
	}},
}

// String returns the table's name in SQL.
func (t Table) String() string { return tables[t].name }

// Key returns the name of the column that a DELETE uses.
func (t Table) Key() string { return tables[t].columns[0].name }

// columns describes the table's columns in their order.
func (t Table) columns() []column { return tables[t].columns }

// DumpSchema returns the schema text that a full dump's first part contains.
func DumpSchema() string { return dumpSchema }
