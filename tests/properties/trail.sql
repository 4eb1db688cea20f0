-- What the property tests add to the tables: a record of each change of a job, and two breakpoints of
-- transactions.
CREATE SCHEMA trail;

CREATE TABLE trail.changes (
    n bigint GENERATED ALWAYS AS IDENTITY,
    act text,
    before jsonb,
    after jsonb,
    dependencies jsonb, -- status of each job that it depends on, by id
    blocked_dependents bigint -- of a deleted job
);

CREATE FUNCTION trail.record() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    job jobs := coalesce(NEW, OLD);
BEGIN
    IF current_setting('trail.is_off', true) = 'on' THEN
        RETURN NULL;
    END IF;
    INSERT INTO trail.changes (act, before, after, dependencies, blocked_dependents) VALUES (
        TG_OP,
        CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) - 'payload' END,
        CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) - 'payload' END,
        (SELECT jsonb_object_agg(id, status) FROM jobs WHERE id = ANY (job.depends_on)),
        CASE WHEN TG_OP = 'DELETE' THEN (
            SELECT count(*) FROM dependencies JOIN jobs ON jobs.id = dependent_id
            WHERE dependency_id = job.id AND status = 'BLOCKED'
        ) END
    );
    RETURN NULL;
END $$;

CREATE TRIGGER record AFTER INSERT OR UPDATE OR DELETE ON jobs FOR EACH ROW EXECUTE FUNCTION trail.record();

-- The first transaction at a breakpoint that is set waits until it is removed; others pass. It sleeps instead of
-- waiting for a lock, so that a transaction that waits for a lock waits for this one.
CREATE FUNCTION trail.stop_at_breakpoint() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_try_advisory_xact_lock(TG_ARGV[0]::int, 1) THEN
        WHILE NOT pg_try_advisory_xact_lock(TG_ARGV[0]::int, 2) LOOP
            PERFORM pg_sleep(0.001);
        END LOOP;
    END IF;
    RETURN coalesce(NEW, OLD);
END $$;

CREATE TRIGGER stop_at_row BEFORE INSERT OR UPDATE OR DELETE ON jobs
    FOR EACH ROW EXECUTE FUNCTION trail.stop_at_breakpoint(19001);
CREATE CONSTRAINT TRIGGER stop_at_commit AFTER INSERT OR UPDATE OR DELETE ON jobs DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION trail.stop_at_breakpoint(19002);
