for i = 3, #ARGV, 2 do
    if redis.call('ZREM', KEYS[1], ARGV[i]) == 1 then
        if redis.call('EXISTS', ARGV[1] .. ARGV[i]) == 1 then
            redis.call('HSET', ARGV[1] .. ARGV[i], 'origin', ARGV[2])
        end
        redis.call('ZADD', KEYS[2], 'NX', ARGV[i + 1], ARGV[i])
    end
end
