local fields = {'data', false, unpack(ARGV, #KEYS + 1)}
for i, key in ipairs(KEYS) do
    fields[2] = ARGV[i]
    redis.call('HSET', key, unpack(fields))
end
