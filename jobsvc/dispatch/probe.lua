redis.call('SET', KEYS[1], '', 'XX')
redis.call('RPUSHX', KEYS[2], '')
return redis.call('HGET', KEYS[1], 'status')
