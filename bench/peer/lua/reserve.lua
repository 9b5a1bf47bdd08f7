-- KEYS: the command's key, the reservation, its SKUs. ARGV: seconds a key is remembered,
-- a quantity for each SKU. All or nothing.
local was = redis.call('GET', KEYS[1])
if was then
    return was
end
for i = 3, #KEYS do
    local row = redis.call('HMGET', KEYS[i], 'on_hand', 'reserved')
    if tonumber(row[1] or 0) - tonumber(row[2] or 0) < tonumber(ARGV[i - 1]) then
        return 'refused'
    end
end
local held = {}
for i = 3, #KEYS do
    redis.call('HINCRBY', KEYS[i], 'reserved', ARGV[i - 1])
    held[#held + 1] = KEYS[i]
    held[#held + 1] = ARGV[i - 1]
end
redis.call('HSET', KEYS[2], unpack(held))
redis.call('SET', KEYS[1], 'reserved', 'NX', 'EX', ARGV[1])
return 'reserved'
