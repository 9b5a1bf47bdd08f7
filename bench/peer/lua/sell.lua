-- KEYS: the command's key, the SKU. ARGV: quantity, seconds a key is remembered.
-- A refusal leaves no trace.
local was = redis.call('GET', KEYS[1])
if was then
    return was
end
local row = redis.call('HMGET', KEYS[2], 'on_hand', 'reserved')
if tonumber(row[1] or 0) - tonumber(row[2] or 0) < tonumber(ARGV[1]) then
    return 'refused'
end
redis.call('SET', KEYS[1], 'sold', 'NX', 'EX', ARGV[2])
redis.call('HINCRBY', KEYS[2], 'on_hand', -ARGV[1])
return 'sold'
