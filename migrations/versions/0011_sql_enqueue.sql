-- jobsvc_enqueue: POST /jobs within the caller's transaction.
--
-- Rules and defaults are those of api/requests.py, handlers/retry_policy.py and jobs/submit.py. A job is inserted as
-- not dispatched; a relay dispatches it after the commit. The caller's settings change nothing: no literal has a
-- backslash (standard_conforming_strings), and no time is read in the session's time zone. All functions but
-- jobsvc_enqueue are private: they run as their caller, and only the owner may call them.


-- Refuse what is no object, or has a name that is not among `known`. path: where it stands within the options.
CREATE FUNCTION jobsvc_check_names(given jsonb, path text, known text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    strange text;
BEGIN
    IF jsonb_typeof(given) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION '% must be an object', coalesce('option "' || nullif(path, '') || '"', 'options')
            USING ERRCODE = '22023';
    END IF;
    SELECT name INTO strange FROM jsonb_object_keys(given) AS name WHERE name <> ALL (known) ORDER BY name LIMIT 1;
    IF strange IS NOT NULL THEN
        RAISE EXCEPTION 'there is no option "%"; %', left(concat_ws('.', nullif(path, ''), strange), 100),
            jobsvc_describe_known('options', strange, known)
            USING ERRCODE = '22023';
    END IF;
END $$;


-- Refuse an object that lacks a needed name, or has a null.
CREATE FUNCTION jobsvc_check_complete(given jsonb, path text, needed text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT given ?& needed OR given @? '$.* ? (@ == null)' THEN
        RAISE EXCEPTION 'option "%" needs %, and no null', path, array_to_string(needed, ', ') USING ERRCODE = '22023';
    END IF;
END $$;


-- Return a text with the known names, and the one that differs from this only in its case and separators, if any.
CREATE FUNCTION jobsvc_describe_known(kind text, strange text, known text[]) RETURNS text LANGUAGE sql AS $$
    SELECT 'known ' || kind || ': ' || coalesce(string_agg(name, ', ' ORDER BY n), 'none')
        || coalesce('; did you mean "' || min(name) FILTER (
            WHERE lower(translate(name, '-_ ', '')) = lower(translate(left(strange, 100), '-_ ', ''))
        ) || '"?', '')
    FROM unnest(known) WITH ORDINALITY AS item (name, n)
$$;


CREATE FUNCTION jobsvc_read_number(
    given jsonb, label text, low numeric, high numeric, is_above boolean DEFAULT false, is_whole boolean DEFAULT false
) RETURNS double precision LANGUAGE plpgsql AS $$
DECLARE
    number numeric;
BEGIN
    IF given IS NULL OR given = 'null' THEN
        RETURN NULL;
    END IF;
    IF jsonb_typeof(given) = 'number' THEN
        number := given::numeric;
        IF abs(number) < 1e-300 THEN
            number := 0;  -- the smallest doubles; the cast of a smaller number fails
        END IF;
        IF number BETWEEN low AND high AND NOT (is_above AND number = low) AND NOT (is_whole AND number <> trunc(number))
        THEN
            RETURN number::double precision;
        END IF;
    END IF;
    RAISE EXCEPTION '% must be a % % % %', label, CASE WHEN is_whole THEN 'whole number' ELSE 'number' END,
        CASE WHEN is_above THEN 'above' ELSE 'from' END, low, CASE WHEN is_above THEN 'and up to ' ELSE 'to ' END || high
        USING ERRCODE = '22023';
END $$;


CREATE FUNCTION jobsvc_read_text(given jsonb, label text, longest integer) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF given IS NULL OR given = 'null' THEN
        RETURN NULL;
    END IF;
    IF jsonb_typeof(given) = 'string' AND length(given #>> '{}') BETWEEN 1 AND longest THEN
        RETURN given #>> '{}';
    END IF;
    RAISE EXCEPTION '% must be a string of 1 to % characters', label, longest USING ERRCODE = '22023';
END $$;


CREATE FUNCTION jobsvc_read_time(given jsonb, label text, at timestamptz) RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE
    written text := upper(given #>> '{}');
    zone text;
    moment timestamptz;
BEGIN
    IF given IS NULL OR given = 'null' THEN
        RETURN NULL;
    END IF;
    IF jsonb_typeof(given) <> 'string' OR written !~ ('^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ]([01][0-9]|2[0-3]):[0-5][0-9]'
        ':[0-5][0-9]([.][0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$')
    THEN
        RAISE EXCEPTION '% must be an RFC 3339 time with its offset, like 2030-01-31T12:00:00Z', label
            USING ERRCODE = '22023';
    END IF;
    zone := CASE WHEN written LIKE '%Z' THEN '+00:00' ELSE right(written, 6) END;
    BEGIN
        moment := (
            translate(left(written, 19), 'T', ' ')::timestamp
            + coalesce(substring(written FROM '[.][0-9]{1,6}'), '0')::double precision * interval '1 second'
            - (left(zone, 1) || '1')::integer * substr(zone, 2)::interval
        ) AT TIME ZONE 'UTC';
    EXCEPTION WHEN data_exception THEN
        RAISE EXCEPTION '% is not a valid date and time', label USING ERRCODE = '22023';
    END;
    IF moment < timestamptz 'epoch' OR moment > at + interval '366 days' THEN
        RAISE EXCEPTION '% must be after 1970 and within a year from now', label USING ERRCODE = '22023';
    END IF;
    RETURN moment;
END $$;


-- Return one interval (seconds) for each retry, by this option and, for what it leaves out, the type's policy.
CREATE FUNCTION jobsvc_read_retry(given jsonb, policy jsonb) RETURNS double precision[] LANGUAGE plpgsql AS $$
DECLARE
    year constant numeric := 31622400;
    own jsonb := '{}';
    retries integer;
    plan jsonb;
    growth jsonb;
    initial double precision;
    factor double precision;
    longest double precision;
    jitter double precision;
BEGIN
    IF given IS NOT NULL AND given <> 'null' THEN
        PERFORM jobsvc_check_names(given, 'retry', '{max,interval,backoff}');
        own := coalesce((SELECT jsonb_object_agg(key, value) FROM jsonb_each(given) WHERE value <> 'null'), '{}');
        retries := jobsvc_read_number(own -> 'max', 'option "retry.max"', 0, 100, is_whole => true);
        IF own ? 'interval' AND own ? 'backoff' THEN
            RAISE EXCEPTION 'option "retry" can have interval or backoff, not both' USING ERRCODE = '22023';
        END IF;
        IF jsonb_typeof(own -> 'interval') = 'array' AND jsonb_array_length(own -> 'interval') NOT BETWEEN 1 AND 100 THEN
            RAISE EXCEPTION 'option "retry.interval" must have 1 to 100 numbers' USING ERRCODE = '22023';
        END IF;
    END IF;
    plan := CASE WHEN own ?| '{interval,backoff}' THEN own ELSE policy END;
    IF retries IS NULL THEN
        retries := CASE
            WHEN jsonb_typeof(own -> 'interval') = 'array' AND jsonb_array_length(own -> 'interval') > 1
            THEN jsonb_array_length(own -> 'interval')
            ELSE (policy -> 'max')::integer
        END;
    END IF;
    growth := plan -> 'backoff';
    IF growth IS NULL THEN
        RETURN jobsvc_read_intervals(plan -> 'interval', retries);
    END IF;
    PERFORM jobsvc_check_names(growth, 'retry.backoff', '{initial,factor,max,jitter}');
    PERFORM jobsvc_check_complete(growth, 'retry.backoff', '{initial}');
    initial := jobsvc_read_number(growth -> 'initial', 'option "retry.backoff.initial"', 0.001, year);
    factor := coalesce(jobsvc_read_number(growth -> 'factor', 'option "retry.backoff.factor"', 1, 100), 2);
    longest := coalesce(jobsvc_read_number(growth -> 'max', 'option "retry.backoff.max"', 0, year), 3600);
    jitter := coalesce(jobsvc_read_number(growth -> 'jitter', 'option "retry.backoff.jitter"', 0, 1), 0.1);
    RETURN ARRAY(
        SELECT least(
            round((least(initial * factor ^ (n - 1), longest) * (1 + jitter * (2 * random() - 1)))::numeric, 6), year
        )
        FROM generate_series(1, retries) AS n ORDER BY n
    );
END $$;


-- Return `retries` intervals of this number or list, whose last value is repeated.
CREATE FUNCTION jobsvc_read_intervals(given jsonb, retries integer) RETURNS double precision[] LANGUAGE plpgsql AS $$
DECLARE
    listed jsonb := CASE WHEN jsonb_typeof(given) = 'array' THEN given ELSE jsonb_build_array(given) END;
    intervals double precision[];
BEGIN
    IF listed @> '[null]' THEN
        RAISE EXCEPTION 'option "retry.interval" must have numbers, not null' USING ERRCODE = '22023';
    END IF;
    intervals := ARRAY(
        SELECT jobsvc_read_number(one, 'option "retry.interval"', 0, 31622400)
        FROM jsonb_array_elements(listed) WITH ORDINALITY AS item (one, n) ORDER BY n
    );
    RETURN ARRAY(SELECT intervals[least(n, cardinality(intervals))] FROM generate_series(1, retries) AS n ORDER BY n);
END $$;


-- Return a UUIDv7 of this time, as jobs/ids.py makes them (RFC 9562, section 6.2, method 3).
CREATE FUNCTION jobsvc_make_id(at timestamptz) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    unit bigint := floor(extract(epoch FROM at) * 4096000);  -- 4096 units in a millisecond
    time_bits text := lpad(to_hex(unit / 4096), 12, '0');
BEGIN
    RETURN left(time_bits, 8) || '-' || right(time_bits, 4) || '-7' || lpad(to_hex(unit % 4096), 3, '0')
        || substr(gen_random_uuid()::text, 19);
END $$;


CREATE FUNCTION jobsvc_check_payload(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF jsonb_typeof(payload) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'payload must be an object' USING ERRCODE = '22023';
    END IF;
    -- What no worker could read.
    IF jsonb_path_exists(payload, 'strict $.**{99} ? (@.type() == "object" || @.type() == "array")') THEN
        RAISE EXCEPTION 'payload is nested more than 100 levels deep' USING ERRCODE = '22023';
    END IF;
    IF jsonb_path_exists(payload, 'strict $.** ? (@.type() == "number" && '
        '(@.abs() >= 1e4300 || (@.abs() > 1.797e308 && @.floor() < @)))')
    THEN
        RAISE EXCEPTION 'payload has a number too large' USING ERRCODE = '22023';
    END IF;
END $$;


-- Return the row of a new job, with the defaults of its type.
CREATE FUNCTION jobsvc_make_job(wanted text, payload jsonb, options jsonb) RETURNS jobs LANGUAGE plpgsql AS $$
DECLARE
    year constant numeric := 31622400;
    at constant timestamptz := clock_timestamp();  -- not now(): the caller's transaction may have begun long ago
    known job_types;
    job jobs;
    delay double precision;
    rate jsonb;
    names text[];
BEGIN
    IF wanted IS NULL THEN
        RAISE EXCEPTION 'type must not be null' USING ERRCODE = '22023';
    END IF;
    SELECT * INTO known FROM job_types WHERE name = wanted;
    IF NOT FOUND THEN
        names := ARRAY(SELECT name FROM job_types ORDER BY name);
        RAISE EXCEPTION 'there is no type "%"; %', left(wanted, 100), jobsvc_describe_known('types', wanted, names)
            USING ERRCODE = '22023';
    END IF;
    PERFORM jobsvc_check_payload(payload);
    job.id := jobsvc_make_id(at);
    job.type := wanted;
    job.payload := payload;
    job.created_at := at;
    job.queue := known.queue;
    job.timeout := known.timeout;
    job.due_at := at;
    rate := known.rate_limit;
    IF options = '{}' THEN  -- most calls
        job.retry_intervals := jobsvc_read_retry(NULL, known.retry);
    ELSE
        PERFORM jobsvc_check_names(options, '', '{queue,delay,runAt,retry,timeout,expiresIn,uniqueKey,onConflict,'
            'tags,concurrencyKey,concurrencyLimit,rateLimit,webhookUrl}');
        job.queue := coalesce(jobsvc_read_text(options -> 'queue', 'option "queue"', 64), known.queue);
        names := ARRAY(SELECT name FROM served_queues ORDER BY name);
        IF job.queue <> ALL (names) THEN
            RAISE EXCEPTION 'there is no queue "%"; %', job.queue, jobsvc_describe_known('queues', job.queue, names)
                USING ERRCODE = '22023';
        END IF;
        delay := jobsvc_read_number(options -> 'delay', 'option "delay"', 0, year);
        job.run_at := jobsvc_read_time(options -> 'runAt', 'option "runAt"', at);
        IF delay IS NOT NULL AND job.run_at IS NOT NULL THEN
            RAISE EXCEPTION 'give option "delay" or "runAt", not both' USING ERRCODE = '22023';
        END IF;
        job.run_at := coalesce(job.run_at, at + delay * interval '1 second');
        job.due_at := coalesce(job.run_at, at);
        job.retry_intervals := jobsvc_read_retry(options -> 'retry', known.retry);
        job.timeout := coalesce(
            jobsvc_read_number(options -> 'timeout', 'option "timeout"', 0, year, is_above => true), known.timeout
        );
        job.expires_at := at + interval '1 second'
            * jobsvc_read_number(options -> 'expiresIn', 'option "expiresIn"', 0, year, is_above => true);
        job.unique_key := jobsvc_read_text(options -> 'uniqueKey', 'option "uniqueKey"', 255);
        job.tags := jobsvc_read_tags(options -> 'tags');
        job.concurrency_key := jobsvc_read_text(options -> 'concurrencyKey', 'option "concurrencyKey"', 255);
        job.concurrency_limit := jobsvc_read_number(
            options -> 'concurrencyLimit', 'option "concurrencyLimit"', 1, 1000, is_whole => true
        );
        IF job.concurrency_limit IS NOT NULL AND job.concurrency_key IS NULL THEN
            RAISE EXCEPTION 'option "concurrencyLimit" needs a "concurrencyKey"' USING ERRCODE = '22023';
        END IF;
        IF job.concurrency_key IS NOT NULL THEN
            job.concurrency_limit := coalesce(job.concurrency_limit, 1);
        END IF;
        rate := coalesce(nullif(options -> 'rateLimit', 'null'), rate);
        job.webhook_url := jobsvc_read_text(options -> 'webhookUrl', 'option "webhookUrl"', 8192);
        IF job.webhook_url !~* '^https?://' THEN
            RAISE EXCEPTION 'option "webhookUrl" must start with http:// or https://' USING ERRCODE = '22023';
        END IF;
    END IF;
    job.max_attempts := cardinality(job.retry_intervals) + 1;
    job.status := CASE WHEN job.due_at > at THEN 'SCHEDULED' ELSE 'PENDING' END;
    IF rate IS NOT NULL THEN
        PERFORM jobsvc_check_names(rate, 'rateLimit', '{key,limit,per}');
        PERFORM jobsvc_check_complete(rate, 'rateLimit', '{key,limit,per}');
        job.rate_key := jobsvc_read_text(rate -> 'key', 'option "rateLimit.key"', 255);
        job.rate_limit := jobsvc_read_number(rate -> 'limit', 'option "rateLimit.limit"', 1, 100000, is_whole => true);
        job.rate_per := jobsvc_read_number(rate -> 'per', 'option "rateLimit.per"', 0.1, 86400);
    END IF;
    RETURN job;
END $$;


CREATE FUNCTION jobsvc_read_tags(given jsonb) RETURNS text[] LANGUAGE plpgsql AS $$
BEGIN
    IF given IS NULL OR given = '[]' THEN
        RETURN NULL;  -- so that the index of tags has no entry
    END IF;
    IF jsonb_typeof(given) <> 'array' OR jsonb_array_length(given) > 16 OR given @? '$[*] ? (@ == null)' THEN
        RAISE EXCEPTION 'option "tags" must be an array of up to 16 strings' USING ERRCODE = '22023';
    END IF;
    RETURN ARRAY(
        SELECT jobsvc_read_text(tag, 'option "tags": each tag', 100)
        FROM jsonb_array_elements(given) WITH ORDINALITY AS item (tag, n) ORDER BY n
    );
END $$;


-- Return what a taken unique key means: return, reject or replace.
CREATE FUNCTION jobsvc_read_conflict(options jsonb, unique_key text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    given jsonb := nullif(options -> 'onConflict', 'null');
BEGIN
    IF given IS NULL THEN
        RETURN 'return';
    END IF;
    IF given NOT IN ('"return"', '"reject"', '"replace"') THEN
        RAISE EXCEPTION 'option "onConflict" must be return, reject or replace' USING ERRCODE = '22023';
    END IF;
    IF unique_key IS NULL THEN
        RAISE EXCEPTION 'option "onConflict" needs a "uniqueKey"' USING ERRCODE = '22023';
    END IF;
    RETURN given #>> '{}';
END $$;


-- Give the waiting job that has this job's unique key this one's payload, time, queue, retries, timeout, expiry and
-- tags, as jobs/amend.py does. Return the id of that job; null if there is none, or it is not waiting.
CREATE FUNCTION jobsvc_replace_job(job jobs) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    holder jobs;
    has_started boolean;
BEGIN
    SELECT * INTO holder FROM jobs
    WHERE type = job.type AND unique_key = job.unique_key
        AND status IN ('PENDING', 'SCHEDULED', 'RETRYING', 'BLOCKED')
    FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    -- A job that is already due keeps its place among the others that are due.
    job.due_at := coalesce(job.run_at, least(holder.due_at, job.created_at));
    -- An expiry applies to the first attempt only. An attempt that has started is counted, or has a row.
    has_started := holder.attempts > 0 OR holder.expiry_met IS NOT NULL
        OR EXISTS (SELECT FROM attempts WHERE job_id = holder.id);
    UPDATE jobs
    SET payload = job.payload,
        queue = job.queue,
        timeout = job.timeout,
        tags = job.tags,
        retry_intervals = job.retry_intervals,
        max_attempts = holder.attempts + job.max_attempts,
        run_at = job.run_at,
        due_at = job.due_at,
        status = CASE WHEN holder.status IN ('PENDING', 'SCHEDULED') THEN job.status ELSE holder.status END,
        dispatched_at = CASE
            WHEN holder.status = 'BLOCKED' THEN holder.dispatched_at
            WHEN holder.dispatched_at >= holder.due_at AND job.due_at <= job.created_at AND job.queue = holder.queue
            THEN greatest(holder.dispatched_at, job.due_at)  -- its entry in RQ stays
        END,
        expires_at = CASE WHEN NOT has_started THEN job.expires_at END,
        expiry_met = CASE WHEN has_started THEN job.expires_at END,
        version = version + 1
    WHERE id = holder.id;
    RETURN holder.id;
END $$;


-- Enqueue a job in the caller's transaction, and return its id.
CREATE FUNCTION jobsvc_enqueue(type text, payload jsonb DEFAULT '{}', options jsonb DEFAULT '{}') RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER AS $$
#variable_conflict use_column
DECLARE
    job jobs := jobsvc_make_job(jobsvc_enqueue.type, jobsvc_enqueue.payload, options);
    on_conflict text := jobsvc_read_conflict(options, job.unique_key);
    found_id uuid;
    found_status text;
BEGIN
    LOOP  -- race: the holder of the unique key may end between the statements
        INSERT INTO jobs (
            id, type, queue, payload, status, created_at, run_at, due_at, expires_at, timeout, retry_intervals,
            max_attempts, unique_key, tags, concurrency_key, concurrency_limit, rate_key, rate_limit, rate_per,
            webhook_url
        )
        VALUES (
            job.id, job.type, job.queue, job.payload, job.status, job.created_at, job.run_at, job.due_at,
            job.expires_at, job.timeout, job.retry_intervals, job.max_attempts, job.unique_key, job.tags,
            job.concurrency_key, job.concurrency_limit, job.rate_key, job.rate_limit, job.rate_per, job.webhook_url
        )
        ON CONFLICT (type, unique_key)
            WHERE unique_key IS NOT NULL
            AND (status = 'PROCESSING' OR status IN ('PENDING', 'SCHEDULED', 'RETRYING', 'BLOCKED'))
            DO NOTHING
        RETURNING id INTO found_id;
        IF FOUND THEN
            INSERT INTO tallies (event, type, queue, number, minute)
            VALUES ('accepted', job.type, job.queue, 1, date_bin('1 min', job.created_at, 'epoch'));
            EXIT;
        END IF;
        IF on_conflict = 'replace' THEN
            found_id := jobsvc_replace_job(job);
            EXIT WHEN found_id IS NOT NULL;
        END IF;
        SELECT id, status INTO found_id, found_status FROM jobs
        WHERE type = job.type AND unique_key = job.unique_key
            AND (status = 'PROCESSING' OR status IN ('PENDING', 'SCHEDULED', 'RETRYING', 'BLOCKED'));
        IF FOUND AND on_conflict = 'return' THEN
            RETURN found_id;
        ELSIF FOUND THEN
            RAISE EXCEPTION 'the uniqueKey "%" of the type % is taken by the job %, which is %', job.unique_key,
                job.type, found_id, found_status
                USING ERRCODE = '23505', TABLE = 'jobs', CONSTRAINT = 'jobs_unique_key';
        END IF;
    END LOOP;
    -- Relays listen; jobsvc/dispatch/listener.py. Postgres merges the notifications of a transaction.
    PERFORM pg_notify('jobsvc_' || 'jobs'::regclass::oid, '');
    RETURN found_id;
END $$;
