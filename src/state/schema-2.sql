-- What version 2 of the schema adds; a new database gets it right after schema.sql.

-- Access time where a program set one (ns); none: follows mtime. Known on this device alone.
ALTER TABLE node ADD COLUMN atime INTEGER;

-- How many folders a folder holds, for its link count. Kept by the triggers below, so that stat
-- of a folder costs the same whatever is in it.
CREATE TABLE subdirs (
    parent INTEGER PRIMARY KEY,
    n      INTEGER NOT NULL
);

INSERT INTO subdirs
    SELECT d.parent, count(*) FROM dirent d JOIN node c ON c.nid=d.child
    WHERE c.kind IN (2, 8) GROUP BY d.parent;

CREATE TRIGGER dirent_added AFTER INSERT ON dirent
WHEN (SELECT kind FROM node WHERE nid=NEW.child) IN (2, 8) BEGIN
    INSERT INTO subdirs VALUES (NEW.parent, 1) ON CONFLICT (parent) DO UPDATE SET n=n+1;
END;

CREATE TRIGGER dirent_removed AFTER DELETE ON dirent
WHEN (SELECT kind FROM node WHERE nid=OLD.child) IN (2, 8) BEGIN
    UPDATE subdirs SET n=n-1 WHERE parent=OLD.parent;
    DELETE FROM subdirs WHERE parent=OLD.parent AND n=0;
END;

CREATE TRIGGER dirent_changed AFTER UPDATE ON dirent BEGIN
    UPDATE subdirs SET n=n-1 WHERE parent=OLD.parent
        AND (SELECT kind FROM node WHERE nid=OLD.child) IN (2, 8);
    INSERT INTO subdirs SELECT NEW.parent, 1
        WHERE (SELECT kind FROM node WHERE nid=NEW.child) IN (2, 8)
        ON CONFLICT (parent) DO UPDATE SET n=n+1;
    DELETE FROM subdirs WHERE parent=OLD.parent AND n=0;
END;
