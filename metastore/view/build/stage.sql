-- What a view is made from and does not keep: a database of its own, deleted
-- when the view is complete.

CREATE TABLE stage.paths (
	id     INTEGER NOT NULL,
	parent INTEGER NOT NULL,
	name   BLOB NOT NULL,
	PRIMARY KEY (parent, name)
) WITHOUT ROWID;
CREATE TABLE stage.files (
	path INTEGER PRIMARY KEY,
	id   INTEGER NOT NULL,
	dir  INTEGER NOT NULL, -- 1: a directory
	data BLOB NOT NULL     -- the rest, packed
);
-- The first slots of files that may have further links.
CREATE TABLE stage.links (
	key  BLOB PRIMARY KEY, -- SHA-256 of the packed metadata without the role
	slot INTEGER NOT NULL
) WITHOUT ROWID;

-- Packed (packed.go says how).
CREATE TABLE stage.path_ids (first BLOB PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE stage.file_ids (first BLOB PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE stage.contents (first BLOB PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE stage.sizes (first BLOB PRIMARY KEY, data BLOB NOT NULL);
