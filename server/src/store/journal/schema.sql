-- The journal, version 1: what the spent log comes to, for people. Times: `opened`, `ended`,
-- `used`, `retires` in milliseconds since the Unix epoch; `ends` in milliseconds since boot, as
-- the kernel's own timeouts run.

-- How far the log was read: the run and the record (segment * 2^32 + index) that was read last,
-- and during which boot of the machine. `complete`: whether `opened` has every target since
-- that boot.
CREATE TABLE position (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    run BLOB NOT NULL CHECK (length(run) = 16),
    record INTEGER NOT NULL,
    boot TEXT NOT NULL,
    complete INTEGER NOT NULL
) STRICT;

-- Every grant, in the order of opening. While it is open, `ended` is when it will have ended.
CREATE TABLE history (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    number INTEGER NOT NULL,
    service TEXT NOT NULL,
    source TEXT NOT NULL,
    opened INTEGER NOT NULL,
    ended INTEGER NOT NULL,
    ends INTEGER NOT NULL,
    how TEXT NOT NULL CHECK (how IN ('open', 'expired', 'closed', 'revoked', 'reboot')),
    knocks INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX history_open ON history (key, service, source) WHERE how = 'open';
CREATE INDEX history_expiring ON history (ends) WHERE how = 'open';
CREATE INDEX history_of_key ON history (key);
CREATE INDEX history_by_end ON history (ended) WHERE how <> 'open';

-- Every target that a generation of a key has opened since boot: where its connections may be.
CREATE TABLE opened (
    key TEXT NOT NULL,
    number INTEGER NOT NULL,
    service TEXT NOT NULL,
    source TEXT NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (key, number, service, source)
) STRICT, WITHOUT ROWID;

-- When each generation was last used and from where, and when it ends, since a newer one was
-- used. `identity` gives nothing of the secret away.
CREATE TABLE generation (
    identity BLOB PRIMARY KEY CHECK (length(identity) = 16),
    used INTEGER,
    used_from TEXT,
    retires INTEGER
) STRICT, WITHOUT ROWID;
