-- The invalidation clock of each namespace, and its markers.

CREATE TABLE {schema}.clocks (
    namespace bigint PRIMARY KEY,
    epoch bigint NOT NULL,
    seq bigint NOT NULL CHECK (seq >= 0)
) WITH (fillfactor = 50);

CREATE TABLE {schema}.markers (
    namespace bigint NOT NULL,
    target bigint NOT NULL,
    seq bigint NOT NULL CHECK (seq >= 0),
    PRIMARY KEY (namespace, target)
);
CREATE INDEX markers_by_seq ON {schema}.markers (namespace, seq);
