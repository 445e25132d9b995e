-- The index: what one writer has backed up, and where its chunks are. It
-- lives beside the machine's configuration, is private to it (mode 0600) and
-- is never uploaded; the dumps in dump.sql are made from it.
--
-- A run is one backup of one set that was, or is about to be, committed. Runs
-- are numbered by seq over all sets, without gaps. What changes from run to
-- run carries the half-open interval of runs [first_run, end_run) in which it
-- holds; end_run NULL means that it still does ("open"). So what does not
-- change is not written again.
--
-- Dumps use ids as they are, so an id must never name a second thing, not even
-- after the run that made it was rolled back. Where rows are many, "ids" counts
-- them; the other tables are AUTOINCREMENT.

PRAGMA application_id = 0x766b6978; -- "vkix"
PRAGMA user_version = 3;            -- the version of this text

-- One value each: "writer", the name of the writer that this index belongs to;
-- "unclean", there while rows may be here that nothing needs any more.
CREATE TABLE settings (
	key   TEXT PRIMARY KEY,
	value TEXT NOT NULL
) WITHOUT ROWID;

-- The last id given out, by table. It is written with the rows that it counts,
-- one statement a transaction, where AUTOINCREMENT takes one a row.
CREATE TABLE ids (
	name TEXT PRIMARY KEY,
	last INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO ids VALUES ('paths', 1), ('files', 0), ('contents', 0), ('chunks', 0);

-- The named lists of paths, as the config file calls them. A set whose
-- snapshots were all purged is not here any more: its open versions count for
-- nothing.
CREATE TABLE sets (
	id   INTEGER PRIMARY KEY AUTOINCREMENT,
	name TEXT NOT NULL UNIQUE
);

-- The runs whose snapshots are kept. At most one, the newest, is not committed.
CREATE TABLE runs (
	seq            INTEGER PRIMARY KEY,
	set_id         INTEGER NOT NULL REFERENCES sets (id),
	snapshot       TEXT NOT NULL UNIQUE,           -- the snapshot's id
	started_s      INTEGER NOT NULL,               -- when, in seconds since 1970
	started_ns     INTEGER NOT NULL,               -- and nanoseconds within the second
	recipients     BLOB NOT NULL,                  -- 32 bytes: the recipient set that it encrypts to
	first_content  INTEGER NOT NULL,               -- contents from this id on are this run's or later ones'
	state          TEXT NOT NULL CHECK (state IN ('running', 'intent', 'committed')),
	manifest       BLOB,                           -- while in state intent: the object's exact bytes
	signature      BLOB,                           -- and its signature's
	hash           BLOB,                           -- from intent on: SHA-256 of the manifest's object
	lists          BLOB                            -- of the newest run: what the next one must know of its lists
);
CREATE UNIQUE INDEX runs_uncommitted ON runs ((1)) WHERE state <> 'committed';

-- The runs whose snapshots were purged. Neither their numbers nor their
-- snapshots' ids may ever be used again.
CREATE TABLE forgotten (
	seq      INTEGER PRIMARY KEY,
	snapshot TEXT NOT NULL UNIQUE
);

-- What inode numbers are counted in.
CREATE TABLE volumes (
	id     INTEGER PRIMARY KEY AUTOINCREMENT,
	fstype TEXT NOT NULL,
	fsid   INTEGER NOT NULL,                       -- of statfs; above 2^63 as two's complement
	root   BLOB NOT NULL,                          -- the mount point, any bytes
	UNIQUE (fstype, fsid, root)
);

-- Where something is, or was. A path is shared by all sets and all runs and
-- never changes. Path 1 is "/", the only one with parent 0 and an empty name.
CREATE TABLE paths (
	id     INTEGER PRIMARY KEY,
	parent INTEGER NOT NULL,
	name   BLOB NOT NULL,                          -- any bytes but "/" and NUL
	UNIQUE (parent, name)
);
INSERT INTO paths (id, parent, name) VALUES (1, 0, X'');

-- Versions of directory entries. Columns from role on are those of a dump.
CREATE TABLE files (
	id         INTEGER PRIMARY KEY,
	set_id     INTEGER NOT NULL,
	path       INTEGER NOT NULL,
	first_run  INTEGER NOT NULL,
	end_run    INTEGER CHECK (end_run > first_run),
	gap        INTEGER NOT NULL,                   -- 1: stands for what a gap hides, in first_run only
	recheck    INTEGER NOT NULL,                   -- 1: read again next time, its times cannot be trusted to show a change
	xattrs     INTEGER NOT NULL,                   -- rows of xattrs
	role       TEXT NOT NULL,                      -- root, inside, implicit-parent
	state      TEXT NOT NULL,                      -- complete, changed-while-read, unreadable, other-fs, cachedir, excluded
	errno      INTEGER NOT NULL,                   -- why it is unreadable, else 0
	type       TEXT NOT NULL,                      -- f d l p s c b
	mode       INTEGER NOT NULL,                   -- permission bits, at most 07777
	uid        INTEGER NOT NULL,
	gid        INTEGER NOT NULL,
	user       BLOB NOT NULL,                      -- name of uid, empty if it had none
	"group"    BLOB NOT NULL,                      -- name of gid, empty if it had none
	size       INTEGER NOT NULL,                   -- bytes
	mtime_s    INTEGER NOT NULL,                   -- seconds since 1970, and below
	mtime_ns   INTEGER NOT NULL,                   -- nanoseconds within the second
	ctime_s    INTEGER NOT NULL,
	ctime_ns   INTEGER NOT NULL,
	btime_s    INTEGER NOT NULL,
	btime_ns   INTEGER NOT NULL,
	volume     INTEGER NOT NULL,                   -- the volume that inode is counted in
	inode      INTEGER NOT NULL,                   -- above 2^63 as two's complement
	nlink      INTEGER NOT NULL,
	rdev_major INTEGER NOT NULL,
	rdev_minor INTEGER NOT NULL,
	target     BLOB,                               -- of a symbolic link, else NULL
	flags      INTEGER NOT NULL,                   -- of FS_IOC_GETFLAGS
	content    INTEGER                             -- of a regular file, NULL if it was not captured
);
CREATE UNIQUE INDEX files_open ON files (set_id, path) WHERE end_run IS NULL;
-- The other names of a file that has several: a new name of an inode that is
-- known already must become the same file.
CREATE INDEX files_links ON files (set_id, volume, inode) WHERE end_run IS NULL AND nlink > 1;
-- Where a directory was that is somewhere else now.
CREATE INDEX files_folders ON files (set_id, volume, inode) WHERE end_run IS NULL AND type = 'd';

-- Extended attributes of a version.
CREATE TABLE xattrs (
	file  INTEGER NOT NULL,
	name  BLOB NOT NULL,
	value BLOB NOT NULL,
	PRIMARY KEY (file, name)
) WITHOUT ROWID;

-- Contents of regular files, so that chmod and hard links copy nothing.
CREATE TABLE contents (
	id   INTEGER PRIMARY KEY,
	size INTEGER NOT NULL                          -- bytes; its file_chunks tile [0, size)
);
CREATE TABLE file_chunks (
	content INTEGER NOT NULL,
	offset  INTEGER NOT NULL,                      -- bytes from the start of the file
	length  INTEGER NOT NULL,                      -- bytes, at least 1
	chunk   INTEGER,                               -- NULL: a hole
	PRIMARY KEY (content, offset)
) WITHOUT ROWID;

-- Chunks, stored or not.
CREATE TABLE chunks (
	id   INTEGER PRIMARY KEY,
	hash BLOB NOT NULL,                            -- SHA-256 of the plaintext, unique
	size INTEGER NOT NULL                          -- bytes of plaintext
);
-- Finds a chunk by the first 6 bytes of its hash, a big-endian number. An index
-- over whole hashes is more than twice as large, and its pages are met at random:
-- what does not stay in memory of it costs a disk's seek for every new chunk.
CREATE TABLE prefixes (
	prefix INTEGER NOT NULL,
	chunk  INTEGER NOT NULL,
	PRIMARY KEY (prefix, chunk)
) WITHOUT ROWID;

-- Blobs that arrived in the store. The index counts on a blob in the runs
-- [seq, end_run): until the run that found it lost, or that committed without
-- needing it. What is not counted on may be deleted by a prune at any time,
-- so an ended blob never comes back. A retired blob is counted on as before,
-- but its chunks are to be uploaded again, until nothing needs it.
CREATE TABLE blobs (
	id         INTEGER PRIMARY KEY AUTOINCREMENT,
	hash       BLOB NOT NULL,                      -- SHA-256 of the object
	seq        INTEGER NOT NULL,                   -- the run it was uploaded under
	end_run    INTEGER,
	retired    INTEGER,                            -- the run that first looked for other places
	size       INTEGER NOT NULL,                   -- bytes of the object
	header     INTEGER NOT NULL,                   -- bytes of the age header
	recipients BLOB NOT NULL,                      -- 32 bytes: the recipient set it is encrypted to
	level      INTEGER NOT NULL,                   -- of compression
	upload_ms  INTEGER NOT NULL,                   -- how long the upload took
	UNIQUE (seq, hash)
);

-- Where in which blob a chunk is; a chunk may be in several.
CREATE TABLE blob_chunks (
	chunk        INTEGER NOT NULL,
	blob         INTEGER NOT NULL,
	frame_offset INTEGER NOT NULL,                 -- of its frame in the blob's decrypted stream
	frame_length INTEGER NOT NULL,
	offset       INTEGER NOT NULL,                 -- of the chunk in the decompressed frame
	length       INTEGER NOT NULL,
	PRIMARY KEY (chunk, blob)
) WITHOUT ROWID;

-- What the directories of a set looked like: a mark says that, if a hash over
-- the entries' names and stats is the same again, the open versions of all
-- entries still hold and need not be looked at. It is only ever dropped too
-- early, never kept too long.
CREATE TABLE marks (
	set_id INTEGER NOT NULL,
	path   INTEGER NOT NULL,                       -- the directory
	mark   BLOB NOT NULL,                          -- 16 bytes
	run    INTEGER NOT NULL,                       -- that set it
	PRIMARY KEY (set_id, path)
) WITHOUT ROWID;

-- The full dump that a set's differential ones are made against. It has the rows
-- whose ids "rows" holds; those stay in the index while it is a base.
CREATE TABLE bases (
	set_id     INTEGER PRIMARY KEY,
	run        INTEGER NOT NULL,                   -- whose dump it is
	recipients BLOB NOT NULL,                      -- 32 bytes: the recipient set it is encrypted to
	parts      BLOB NOT NULL,                      -- how manifests name its parts; the writer's business
	full_size  INTEGER NOT NULL,                   -- bytes of its objects
	diff_size  INTEGER NOT NULL,                   -- bytes of all differential ones against it so far
	rows       BLOB NOT NULL                       -- base.go says how
);

-- Places that a run could not look at. What is open at or below them stays
-- open, and that run's snapshot shows the gap's own version and nothing below.
CREATE TABLE gaps (
	run   INTEGER NOT NULL,
	path  INTEGER NOT NULL,
	errno INTEGER NOT NULL,
	file  INTEGER NOT NULL,                        -- the version that the snapshot shows there
	PRIMARY KEY (run, path)
) WITHOUT ROWID;

-- What each run's snapshot shows.
CREATE VIEW snapshot_files AS
	WITH RECURSIVE hidden (run, path) AS (
		SELECT g.run, p.id FROM gaps g JOIN paths p ON p.parent = g.path
		UNION
		SELECT h.run, p.id FROM hidden h JOIN paths p ON p.parent = h.path
	)
	SELECT r.seq AS run, f.*
	FROM runs r
	JOIN files f ON f.set_id = r.set_id AND f.first_run <= r.seq AND (f.end_run IS NULL OR f.end_run > r.seq)
	WHERE (r.seq, f.path) NOT IN (SELECT run, path FROM hidden)
	AND (f.gap OR (r.seq, f.path) NOT IN (SELECT run, path FROM gaps));

-- The blobs that each run's snapshot needs. Of several blobs with a chunk it
-- is the newest, if possible among those that the run's recipients can read,
-- and of these among those that were not retired.
CREATE VIEW snapshot_blobs AS
	SELECT DISTINCT s.run, (
		SELECT b.id
		FROM blob_chunks l
		JOIN blobs b ON b.id = l.blob
		JOIN runs r ON r.seq = s.run
		WHERE l.chunk = c.chunk AND b.seq <= s.run AND (b.end_run IS NULL OR b.end_run > s.run)
		ORDER BY b.recipients = r.recipients DESC, coalesce(b.retired <= s.run, 0), b.id DESC
		LIMIT 1
	) AS blob
	FROM snapshot_files s
	JOIN file_chunks c ON c.content = s.content
	WHERE blob IS NOT NULL;
