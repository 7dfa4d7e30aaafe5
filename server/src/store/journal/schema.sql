-- The journal, version 1: what the spent log adds up to, for people. Times: `opened`, `ended`,
-- `used`, `retires` and `last` in milliseconds since the Unix epoch; `ends` and `now` in
-- milliseconds since boot, as the kernel's own timeouts run.

-- How far the log was read: the run, the segment and the record that was read last, in which
-- boot of the machine, and when. `complete`: whether `opened` has every target since that boot.
CREATE TABLE position (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    run BLOB NOT NULL CHECK (length(run) = 16),
    segment INTEGER NOT NULL,
    record INTEGER NOT NULL,
    boot BLOB NOT NULL CHECK (length(boot) = 16),
    now INTEGER NOT NULL,
    complete INTEGER NOT NULL
) STRICT;

-- Every grant, in the order of opening. An open one expires at `ends`, and `ended` is that time
-- by the wall clock: nothing is written when it expires.
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

-- Every target that a generation of a key has opened since boot, and when it did last: its
-- connections can be there and nowhere else.
CREATE TABLE opened (
    key TEXT NOT NULL,
    number INTEGER NOT NULL,
    service TEXT NOT NULL,
    source TEXT NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (key, number, service, source)
) STRICT, WITHOUT ROWID;

-- When each generation was last used, and from where; when it ends, since a newer one was used.
-- `identity` gives nothing of the secret away.
CREATE TABLE generation (
    identity BLOB PRIMARY KEY CHECK (length(identity) = 16),
    used INTEGER,
    used_from TEXT,
    retires INTEGER
) STRICT, WITHOUT ROWID;
