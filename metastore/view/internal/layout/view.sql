-- A view: one snapshot, laid out for reading. It is made from a dump, lives in
-- a cache folder (mode 0600) and can be made again at any time. An inode
-- number of the mounted tree leads to its row, without any table in memory.

PRAGMA application_id = 0x766b7677; -- "vkvw"
PRAGMA user_version = 3;            -- the version of this text and of the page's layout

-- Numbers of the whole: the totals, and "complete" when all is there.
CREATE TABLE about (
	key   TEXT PRIMARY KEY,
	value INTEGER NOT NULL
) WITHOUT ROWID;

-- Directory entries, packed (page.go says how). An entry's slot is its page's
-- first plus its position. A directory's entries have consecutive slots in
-- listing order: everything that is not a directory, then the directories,
-- each in byte order. Directories follow one another depth first. Slot 1 is
-- the root, the only one with dir 0.
CREATE TABLE pages (
	first INTEGER PRIMARY KEY,
	dir   INTEGER NOT NULL, -- inode number of the directory
	low   BLOB NOT NULL,    -- of the first entry: byte 0, or 1 for a directory, then its name
	data  BLOB NOT NULL
);
CREATE UNIQUE INDEX pages_dir ON pages (dir, low);

-- As in the dump.
CREATE TABLE xattrs (
	file  INTEGER NOT NULL,
	name  BLOB NOT NULL,
	value BLOB NOT NULL,
	PRIMARY KEY (file, name)
) WITHOUT ROWID;
CREATE TABLE volumes (
	id     INTEGER PRIMARY KEY,
	fstype TEXT NOT NULL,
	fsid   INTEGER NOT NULL,
	root   BLOB NOT NULL
);
CREATE TABLE blobs (
	id         INTEGER PRIMARY KEY,
	hash       BLOB NOT NULL,
	seq        INTEGER NOT NULL,
	size       INTEGER NOT NULL,
	header     INTEGER NOT NULL,
	recipients BLOB NOT NULL,
	level      INTEGER NOT NULL,
	upload_ms  INTEGER NOT NULL
);

-- Packed (packed.go says how).
CREATE TABLE file_chunks (first BLOB PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE chunks (first BLOB PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE blob_chunks (first BLOB PRIMARY KEY, data BLOB NOT NULL);
