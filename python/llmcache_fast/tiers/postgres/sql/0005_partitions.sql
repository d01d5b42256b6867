-- Which records are of a partition, in the order of their arrival. A record without one takes no more room than before,
-- and stands in no index more.

ALTER TABLE {schema}.records ADD COLUMN partition bytea, ADD COLUMN arrival bigint;

CREATE INDEX records_by_arrival ON {schema}.records (partition, arrival) WHERE partition IS NOT NULL;

-- The last arrival in each partition, for as long as it has records. Who writes into a partition locks its row first
-- and until the commit, as who raises markers does with a clock: so records become visible in the order of their
-- arrivals, and who follows by the last one it saw misses none. A sequence would not do, for numbers taken first may be
-- committed last; nor would the transaction's number with the oldest one still running, for that stands still while
-- anybody in any database of the server has a long transaction open, and means nothing after a dump was restored.
-- Arrivals begin at the time, microseconds since 1970, so that a row which was deleted and made again goes on above.
CREATE TABLE {schema}.partitions (
    partition bytea PRIMARY KEY,
    arrival bigint NOT NULL
) WITH (fillfactor = 50);
