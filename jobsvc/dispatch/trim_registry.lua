-- Removes the oldest jobs from one of RQ's registries of ended jobs.
-- A script, since a job must not be queued again between its check and its removal (race). If a job's status
-- has changed, only its entry is removed. A job that also has a running or scheduled attempt is left.
local registry, scheduled = KEYS[1], KEYS[2]
local keep, limit, job, executions, results = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local call, statuses, known = ARGV[6], tonumber(ARGV[7]), {}
local surplus = redis.call('ZCARD', registry) - keep
if surplus <= 0 then return {0} end
local ended = {}
for i = 8, 7 + statuses do ended[ARGV[i]] = true end
for i = 8 + statuses, #ARGV do known[ARGV[i]] = true end
local removed, keys, answer = {}, {}, {0}
for _, id in ipairs(redis.call('ZRANGE', registry, 0, math.min(surplus, limit) - 1)) do
    local status, data = unpack(redis.call('HMGET', job .. id, 'status', 'data'))
    local belongs = ended[status]
    if data and not known[id] and string.find(data, call, 1, true) ~= 1 then
        if #data < 1000 then answer[#answer + 1], answer[#answer + 2] = id, data end
    elseif not belongs
        or (redis.call('EXISTS', executions .. id) == 0 and not redis.call('ZSCORE', scheduled, id)) then
        removed[#removed + 1] = id
        if belongs then keys[#keys + 1], keys[#keys + 2] = job .. id, results .. id end
    end
end
if #keys > 0 then redis.call('UNLINK', unpack(keys)) end
if #removed > 0 then answer[1] = redis.call('ZREM', registry, unpack(removed)) end
return answer
