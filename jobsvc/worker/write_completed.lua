-- Writes jobs as completed. KEYS: each job's key and results key. ARGV: status of a finished job, type of a successful
-- result, seconds to keep both, number of results to keep, worker, end as text, end in seconds; then for each job start
-- as text, result, execution id and start in seconds.
local status, kind, ttl, kept, worker, ended, moment = unpack(ARGV, 1, 7)
for i = 1, #KEYS, 2 do
    local job, results, at = KEYS[i], KEYS[i + 1], 2 * i + 6
    local new = redis.call('HSET', job, 'status', status, 'started_at', ARGV[at], 'ended_at', ended,
        'last_heartbeat', ended, 'worker_name', worker)
    if new == 5 then  -- Redis had lost the job
        redis.call('DEL', job)
    else
        local fields = {'type', kind, 'worker_name', worker}
        for n, name in ipairs({'return_value', 'execution_id', 'execution_started_at'}) do
            if ARGV[at + n] ~= '' then
                fields[#fields + 1], fields[#fields + 2] = name, ARGV[at + n]
            end
        end
        redis.call('EXPIRE', job, ttl)
        redis.call('XADD', results, 'MAXLEN', '~', kept, '*', 'execution_ended_at', moment, unpack(fields))
        redis.call('EXPIRE', results, ttl)
    end
end
