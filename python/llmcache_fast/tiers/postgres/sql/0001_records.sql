-- Entries. `llmcache-fast migrate URL` runs these files in their order; with --print it prints them, names put in.
--
-- Numbers that are unsigned 64-bit in the package (epoch, snap, namespace, target) are bigint here, in two's
-- complement. Times are microseconds since 1970; 9223372036854775807 is never.

CREATE TABLE {schema}.migrations (
    version integer PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- A row without an envelope is a tombstone: until stale_until it keeps older writes out. The columns after the
-- envelope are there to be searched; they are null where a record hides them.
CREATE TABLE {schema}.records (
    key bytea NOT NULL,
    epoch bigint NOT NULL,
    snap bigint NOT NULL,
    stale_until bigint NOT NULL,
    fresh_until bigint NOT NULL,
    created bigint NOT NULL,
    cost bigint NOT NULL,
    envelope bytea,
    namespace text COLLATE "C",
    label text COLLATE "C",
    model text,
    tags text[],
    metadata jsonb,
    PRIMARY KEY (key)
) {partition_by};

-- The envelope is compressed already where that pays.
ALTER TABLE {schema}.records ALTER COLUMN envelope SET STORAGE EXTERNAL;

CREATE INDEX records_by_expiry ON {schema}.records (stale_until) WHERE stale_until < 9223372036854775807;
CREATE INDEX records_by_age ON {schema}.records (namespace, created, key) WHERE namespace IS NOT NULL;
CREATE INDEX records_by_label ON {schema}.records (namespace, label) WHERE label IS NOT NULL;
CREATE INDEX records_by_tag ON {schema}.records USING gin (tags) WHERE tags IS NOT NULL;

-- Rows of up to 8 kB stay in their page. By default they go out of line from 2 kB on, and a read then takes a
-- second look-up: rows of 2 kB are read at half the rate, and written at four fifths of it. On a partitioned table
-- each part has this for itself.
{partitions}
