-- Every type, in database ARGV[1]; ARGV[2] keys of each kind.
redis.call('SELECT', ARGV[1])
local count = tonumber(ARGV[2])
for n = 1, count do
  redis.call('SET', 'session:' .. n, string.rep('value ' .. n .. ' ', 5))
  redis.call('PEXPIREAT', 'session:' .. n, 4102444800000 + n)
  redis.call('HSET', 'user:' .. n, 'name', 'user ' .. n, 'mail', 'u' .. n .. '@example.org', 'n', n)
  redis.call('ZADD', 'board:' .. n % 50, n * 1.5, 'player ' .. n)
  redis.call('SADD', 'tags:' .. n % 100, 'tag ' .. n)
  redis.call('RPUSH', 'queue:' .. n % 20, 'job ' .. n, string.rep('x', n % 300))
  redis.call('XADD', 'events', n .. '-1', 'kind', 'click', 'n', n)
end
redis.call('SETBIT', 'bits', 100000, 1)
for n = 1, 1000 do redis.call('PFADD', 'visitors', 'v' .. n) end
redis.call('SET', 'binary \0 \255 key', 'v\0\1\2\255')
redis.call('XGROUP', 'CREATE', 'events', 'workers', '0')
redis.call('XREADGROUP', 'GROUP', 'workers', 'w1', 'COUNT', 10, 'STREAMS', 'events', '>')
return redis.call('DBSIZE')
