-- One digest over every key of database ARGV[1]: name, type, content in a fixed order, expiry.
redis.call('SELECT', ARGV[1])
local function sorted(list) table.sort(list) return table.concat(list, '\1') end
local function flat(value)
  if type(value) ~= 'table' then return tostring(value) end
  local parts = {}
  for i, part in ipairs(value) do parts[i] = flat(part) end
  return '{' .. table.concat(parts, '\2') .. '}'
end
local function pairs_of(list)
  local joined = {}
  for i = 1, #list, 2 do joined[#joined + 1] = list[i] .. '\2' .. list[i + 1] end
  return sorted(joined)
end
local read = {
  string = function(key) return redis.call('GET', key) end,
  list = function(key) return flat(redis.call('LRANGE', key, 0, -1)) end,
  set = function(key) return sorted(redis.call('SMEMBERS', key)) end,
  zset = function(key) return flat(redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')) end,
  hash = function(key) return pairs_of(redis.call('HGETALL', key)) end,
  stream = function(key)
    return flat(redis.call('XRANGE', key, '-', '+')) .. flat(redis.call('XPENDING', key, 'workers'))
  end,
}
local keys = redis.call('KEYS', '*')
table.sort(keys)
local digest = ''
for _, key in ipairs(keys) do
  local kind = redis.call('TYPE', key).ok
  digest = redis.sha1hex(digest .. key .. kind .. read[kind](key) .. redis.call('PEXPIRETIME', key))
end
return #keys .. ' keys, digest ' .. digest
