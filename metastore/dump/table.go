// Package dump is the text between a writer's index and a reader's view: the
// metadata of one snapshot as SQL that any sqlite3 program can load. docs/FORMAT.md
// describes it, and dump.sql has the exact tables.
//
// A [Writer] cuts rows into statements and statements into parts, within the
// limits of both. [Parse] reads a part and accepts exactly what the grammar
// says; [Check] judges what a row says by itself. Whether rows fit each other is
// for package build to find out. No text is ever given to SQLite here.
package dump

import _ "embed" // dump.sql

// schemaText is the exact schema text of a dump, one CREATE TABLE a line.
//
//go:embed dump.sql
var schemaText string

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

	// TableCount is how many there are.
	TableCount
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

// Column is what a dump's schema says about a column.
type Column struct {
	Name     string
	Kind     Kind
	Nullable bool
}

func integer(name string) Column { return Column{name, Integer, false} }
func text(name string) Column    { return Column{name, Text, false} }
func bytesOf(name string) Column { return Column{name, Bytes, false} }
func orNull(c Column) Column     { c.Nullable = true; return c }

// table is what a dump's schema says about a table. The first column is the
// key that a differential dump's DELETE names.
type table struct {
	name    string
	columns []Column
}

// tables says what dump.sql says; a test compares them.
var tables = [TableCount]table{
	TableSnapshots: {"snapshots", []Column{
		integer("seq"), text("id"), text("writer"), text("set_name"), bytesOf("hostname"),
		integer("started_s"), integer("started_ns"), integer("finished_s"), integer("finished_ns"),
		text("version"), text("revision"), bytesOf("roots"), bytesOf("excludes"), bytesOf("tags"),
		text("chunker"), integer("chunk_min"), integer("chunk_avg"), integer("chunk_max"), bytesOf("chunk_secret"),
		integer("new_files"), integer("new_bytes"), integer("stored_bytes"),
	}},
	TableVolumes: {"volumes", []Column{
		integer("id"), text("fstype"), integer("fsid"), bytesOf("root"),
	}},
	TablePaths: {"paths", []Column{
		integer("id"), integer("parent"), bytesOf("name"),
	}},
	TableFiles: {"files", []Column{
		integer("id"), integer("path"), text("role"), text("state"), integer("errno"), text("type"),
		integer("mode"), integer("uid"), integer("gid"), bytesOf("user"), bytesOf("group"), integer("size"),
		integer("mtime_s"), integer("mtime_ns"), integer("ctime_s"), integer("ctime_ns"),
		integer("btime_s"), integer("btime_ns"),
		integer("volume"), integer("inode"), integer("nlink"), integer("rdev_major"), integer("rdev_minor"),
		orNull(bytesOf("target")), integer("flags"), orNull(integer("content")),
	}},
	TableXattrs: {"xattrs", []Column{
		integer("file"), bytesOf("name"), bytesOf("value"),
	}},
	TableContents: {"contents", []Column{
		integer("id"),
	}},
	TableFileChunks: {"file_chunks", []Column{
		integer("content"), integer("offset"), integer("length"), orNull(integer("chunk")),
	}},
	TableChunks: {"chunks", []Column{
		integer("id"), bytesOf("hash"), integer("size"),
	}},
	TableBlobs: {"blobs", []Column{
		integer("id"), bytesOf("hash"), integer("seq"), integer("size"), integer("header"),
		bytesOf("recipients"), integer("level"), integer("upload_ms"),
	}},
	TableBlobChunks: {"blob_chunks", []Column{
		integer("chunk"), integer("blob"), integer("frame_offset"), integer("frame_length"),
		integer("offset"), integer("length"),
	}},
}

// String returns the table's name in SQL.
func (t Table) String() string { return tables[t].name }

// Key returns the name of the column that a DELETE uses.
func (t Table) Key() string { return tables[t].columns[0].Name }

// Columns describes the table's columns in their order.
func (t Table) Columns() []Column { return tables[t].columns }

// Schema returns the schema text that a full dump's first part contains.
func Schema() string { return schemaText }
