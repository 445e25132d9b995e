-- What a view is made from and does not keep: a database of its own, deleted
-- when the view is complete.

CREATE TABLE stage.volumes (id INTEGER PRIMARY KEY);
CREATE TABLE stage.paths (
	id     INTEGER PRIMARY KEY,
	parent INTEGER NOT NULL,
	name   BLOB NOT NULL,
	UNIQUE (parent, name)
);
CREATE TABLE stage.files (
	path    INTEGER PRIMARY KEY,
	id      INTEGER NOT NULL UNIQUE,
	dir     INTEGER NOT NULL, -- 1: a directory
	content INTEGER,
	data    BLOB NOT NULL     -- the rest, packed
);
CREATE TABLE stage.contents (id INTEGER PRIMARY KEY);
CREATE TABLE stage.sizes (
	content INTEGER PRIMARY KEY,
	size    INTEGER NOT NULL, -- bytes
	blocks  INTEGER NOT NULL  -- of 512 bytes
);
-- The first slots of files that may have further links.
CREATE TABLE stage.links (
	key  BLOB PRIMARY KEY, -- SHA-256 of the packed metadata without the role
	slot INTEGER NOT NULL
) WITHOUT ROWID;
