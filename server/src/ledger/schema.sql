-- The ledger, version 2. Times: `at`, `opened`, `until`, `ended` in milliseconds since
-- the Unix epoch; `ends` in milliseconds since the machine's start, as the kernel's own
-- timeouts run.

-- One secret at one server. `identity` tells it from every other and gives nothing of it
-- away. Nothing is accepted from it that is not later than its floor. `retires`: its end,
-- since a newer generation of its key was used.
CREATE TABLE generation (
    id INTEGER PRIMARY KEY,
    identity BLOB NOT NULL UNIQUE CHECK (length(identity) = 16),
    key TEXT NOT NULL,
    floor INTEGER,
    used INTEGER,
    used_from TEXT,
    retires INTEGER
) STRICT;

-- What was accepted and could still pass the time window. In the order of time, so that
-- a new row goes to the end and forgetting cuts the beginning off.
CREATE TABLE accepted (
    at INTEGER NOT NULL,
    packet BLOB NOT NULL CHECK (length(packet) = 32),
    generation INTEGER NOT NULL REFERENCES generation (id),
    PRIMARY KEY (at, packet)
) STRICT, WITHOUT ROWID;

-- Each key's last close of a place: an open that is not later is refused.
CREATE TABLE closed (
    key TEXT NOT NULL,
    service TEXT NOT NULL,
    address TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (key, service, address)
) STRICT, WITHOUT ROWID;

-- The live claims.
CREATE TABLE claim (
    key TEXT NOT NULL,
    service TEXT NOT NULL,
    address TEXT NOT NULL,
    generation INTEGER NOT NULL REFERENCES generation (id),
    number INTEGER NOT NULL,
    opened INTEGER NOT NULL,
    until INTEGER NOT NULL,
    ends INTEGER NOT NULL,
    knocks INTEGER NOT NULL,
    PRIMARY KEY (key, service, address)
) STRICT, WITHOUT ROWID;

-- What has been: a claim that ended, and how.
CREATE TABLE history (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    service TEXT NOT NULL,
    address TEXT NOT NULL,
    number INTEGER NOT NULL,
    opened INTEGER NOT NULL,
    ended INTEGER NOT NULL,
    how TEXT NOT NULL CHECK (how IN ('expired', 'closed', 'revoked', 'lost')),
    knocks INTEGER NOT NULL
) STRICT;
CREATE INDEX history_of_key ON history (key);
CREATE INDEX history_by_end ON history (ended);
