-- Rules (patterns of labels, in bytes that only the cache reads), and the two steps on a clock: functions, because
-- each statement in one sees all that was committed before that statement began, and it is one round trip.

CREATE TABLE {schema}.rules (
    namespace bigint NOT NULL,
    rule bytea NOT NULL CHECK (octet_length(rule) BETWEEN 17 AND 1024),
    seq bigint NOT NULL CHECK (seq >= 0),
    PRIMARY KEY (namespace, rule)
);

-- Counts every raise of a marker since it was last set to their number: what tells that there may be too many.
ALTER TABLE {schema}.clocks ADD COLUMN markers bigint NOT NULL DEFAULT 0;
UPDATE {schema}.clocks AS c
SET markers = (SELECT count(*) FROM {schema}.markers AS m WHERE m.namespace = c.namespace);

-- Raise markers and rules, and tell. `fresh` is an epoch to use if a new one is needed, `moment` the time, or null
-- for the server's. `seen` is the highest seq of `seen_epoch` that the caller saw: a clock that stands behind it has
-- lost markers, so it gets a new epoch. `told` is the last field of the message (llmcache_fast/tiers/messages.py).
--
-- The clock's row is locked first and until the commit, so markers become visible, and are told, in the order of
-- their seqs. Where commits are acknowledged before they are synced, this one is not.
--
-- Beyond the numbers to keep the older half goes, and the namespace's own marker, whose target is its number, stands
-- for it. Markers are counted when an eighth more than that may be there, so that few raises pay for it.
CREATE FUNCTION {schema}.raise_markers(
    space bigint, fresh bigint, moment bigint, seen_epoch bigint, seen bigint,
    targets bigint[], added bytea[], forgotten bytea[], most_markers integer, most_rules integer,
    channel text, told text,
    OUT new_epoch bigint, OUT new_seq bigint, OUT prev bigint
)
LANGUAGE plpgsql
AS $$
DECLARE
    present constant bigint := coalesce(moment, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);
    surplus bigint;
    there bigint;
    youngest bigint;
    floor bigint;
    gone_markers bigint;
BEGIN
    IF current_setting('synchronous_commit') IN ('off', 'local') THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    LOOP
        SELECT c.epoch, c.seq, c.markers INTO new_epoch, prev, there FROM {schema}.clocks AS c WHERE c.namespace = space FOR UPDATE;
        EXIT WHEN FOUND;
        INSERT INTO {schema}.clocks (namespace, epoch, seq) VALUES (space, fresh, present)
        ON CONFLICT (namespace) DO NOTHING;
    END LOOP;
    IF new_epoch = seen_epoch AND prev < seen THEN
        new_epoch := fresh;
        prev := greatest(prev, present);
    END IF;
    new_seq := greatest(prev + 1, present);
    INSERT INTO {schema}.markers (namespace, target, seq)
    SELECT DISTINCT space, given.target, new_seq FROM unnest(targets) AS given (target)
    ON CONFLICT (namespace, target) DO UPDATE SET seq = excluded.seq;

    IF cardinality(forgotten) > 0 THEN
        DELETE FROM {schema}.rules AS r WHERE r.namespace = space AND r.rule = ANY (forgotten);
    END IF;
    IF cardinality(added) > 0 THEN
        INSERT INTO {schema}.rules (namespace, rule, seq)
        SELECT DISTINCT space, given.rule, new_seq FROM unnest(added) AS given (rule)
        ON CONFLICT (namespace, rule) DO UPDATE SET seq = excluded.seq;
        SELECT count(*) INTO surplus FROM {schema}.rules AS r WHERE r.namespace = space;
        IF surplus > most_rules THEN
            WITH gone AS (
                DELETE FROM {schema}.rules AS r
                WHERE r.namespace = space AND r.rule = ANY (ARRAY(
                    SELECT old.rule FROM {schema}.rules AS old WHERE old.namespace = space
                    ORDER BY old.seq, old.rule LIMIT surplus - most_rules / 2
                ))
                RETURNING r.seq
            )
            SELECT max(gone.seq) INTO floor FROM gone;
        END IF;
    END IF;

    there := there + cardinality(targets);
    IF there > most_markers + most_markers / 8 THEN
        SELECT count(*) INTO there FROM {schema}.markers AS m WHERE m.namespace = space;
        IF there > most_markers THEN
            SELECT m.seq INTO youngest FROM {schema}.markers AS m WHERE m.namespace = space
            ORDER BY m.seq OFFSET there / 2 LIMIT 1;
            DELETE FROM {schema}.markers AS m
            WHERE m.namespace = space AND m.seq <= youngest AND m.target <> space;
            GET DIAGNOSTICS gone_markers = ROW_COUNT;
            there := there - gone_markers;
            floor := greatest(floor, youngest);
        END IF;
    END IF;
    IF floor IS NOT NULL THEN
        INSERT INTO {schema}.markers AS m (namespace, target, seq) VALUES (space, space, floor)
        ON CONFLICT (namespace, target) DO UPDATE SET seq = greatest(m.seq, excluded.seq);
        there := there + 1;
    END IF;
    UPDATE {schema}.clocks AS c SET epoch = new_epoch, seq = new_seq, markers = there WHERE c.namespace = space;

    PERFORM pg_notify(channel, concat_ws(
        ':', '1', lpad(to_hex(space), 16, '0'), lpad(to_hex(new_epoch), 16, '0'), prev, new_seq, told
    ));
END $$;

-- What was raised in each namespace after `since`, if its epoch is `known`; else all. The arrays are of one length,
-- a place of each for a namespace. Writes only where it must, so that a server that takes no writes can be asked.
CREATE FUNCTION {schema}.changes(
    spaces bigint[], known bigint[], since bigint[], seen_epochs bigint[], seen bigint[], fresh bigint[], moment bigint
)
RETURNS TABLE (
    place bigint, epoch bigint, seq bigint, targets bigint[], target_seqs bigint[], rules bytea[], rule_seqs bigint[]
)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    present constant bigint := coalesce(moment, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);
BEGIN
    IF EXISTS (
        SELECT FROM unnest(spaces) AS a (space)
        WHERE NOT EXISTS (SELECT FROM {schema}.clocks AS c WHERE c.namespace = a.space)
    ) THEN
        INSERT INTO {schema}.clocks (namespace, epoch, seq)
        SELECT a.space, a.fresh, present FROM unnest(spaces, fresh) AS a (space, fresh) ORDER BY a.space
        ON CONFLICT (namespace) DO NOTHING;
    END IF;
    IF EXISTS (
        SELECT FROM unnest(spaces, seen_epochs, seen) AS a (space, epoch, seq)
        JOIN {schema}.clocks AS c ON c.namespace = a.space
        WHERE c.epoch = a.epoch AND c.seq < a.seq
    ) THEN
        PERFORM FROM {schema}.clocks AS c WHERE c.namespace = ANY (spaces) ORDER BY c.namespace FOR UPDATE;
        UPDATE {schema}.clocks AS c SET epoch = a.fresh, seq = greatest(c.seq, present)
        FROM unnest(spaces, seen_epochs, seen, fresh) AS a (space, epoch, seq, fresh)
        WHERE c.namespace = a.space AND c.epoch = a.epoch AND c.seq < a.seq;
    END IF;
    RETURN QUERY
        SELECT a.place, c.epoch, c.seq, m.targets, m.seqs, r.rules, r.seqs
        FROM unnest(spaces, known, since) WITH ORDINALITY AS a (space, epoch, seq, place)
        JOIN {schema}.clocks AS c ON c.namespace = a.space
        CROSS JOIN LATERAL (
            SELECT array_agg(t.target ORDER BY t.seq, t.target) AS targets,
                   array_agg(t.seq ORDER BY t.seq, t.target) AS seqs
            FROM {schema}.markers AS t
            WHERE t.namespace = a.space AND t.seq > CASE WHEN c.epoch = a.epoch THEN a.seq ELSE -1 END
        ) AS m
        CROSS JOIN LATERAL (
            SELECT array_agg(t.rule ORDER BY t.seq, t.rule) AS rules,
                   array_agg(t.seq ORDER BY t.seq, t.rule) AS seqs
            FROM {schema}.rules AS t
            WHERE t.namespace = a.space AND t.seq > CASE WHEN c.epoch = a.epoch THEN a.seq ELSE -1 END
        ) AS r;
END $$;
