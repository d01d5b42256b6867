-- Who computes what, until when. Unlogged: to lose it in a crash costs a computation, to keep it would cost a sync
-- of the disk for every miss.

CREATE UNLOGGED TABLE {schema}.leases (
    key bytea PRIMARY KEY,
    token bytea NOT NULL,
    until bigint NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000);

-- Read, and lease what is not there. A function, because each statement in it sees all that was committed before
-- that statement began: the last owner may have stored the record and let go between the first two, so what was
-- leased is looked for again. `moment` is the time, or null for the server's.
CREATE FUNCTION {schema}.get_or_lease(wanted bytea[], owner bytea, lease bigint, moment bigint)
RETURNS TABLE (key bytea, envelope bytea, held boolean)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    present constant bigint := coalesce(moment, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);
    absent bytea[];
    won bytea[] := '{}';
BEGIN
    absent := ARRAY(
        SELECT DISTINCT w.key FROM unnest(wanted) AS w (key)
        WHERE NOT EXISTS (
            SELECT FROM {schema}.records AS r WHERE r.key = w.key AND r.envelope IS NOT NULL
        )
        ORDER BY w.key
    );
    IF cardinality(absent) > 0 THEN
        WITH taken AS (
            INSERT INTO {schema}.leases AS l (key, token, until)
            SELECT a.key, owner, present + lease FROM unnest(absent) AS a (key)
            ON CONFLICT (key) DO UPDATE SET token = excluded.token, until = excluded.until
            WHERE l.until <= present OR l.token = excluded.token
            RETURNING l.key
        )
        SELECT coalesce(array_agg(t.key), '{}') INTO won FROM taken AS t;
        DELETE FROM {schema}.leases AS l USING {schema}.records AS r
        WHERE l.key = ANY (won) AND l.token = owner AND r.key = l.key AND r.envelope IS NOT NULL;
    END IF;
    RETURN QUERY
        SELECT w.key, r.envelope, r.envelope IS NULL AND w.key = ANY (won)
        FROM unnest(wanted) AS w (key)
        LEFT JOIN {schema}.records AS r ON r.key = w.key;
END $$;
