-- KEYS: the command's key, the reservation. ARGV: seconds a key is remembered, sold or
-- released. The SKUs are those of the reservation, which a cluster would want as KEYS.
local was = redis.call('GET', KEYS[1])
if was then
    return was
end
local held = redis.call('HGETALL', KEYS[2])
if #held == 0 then
    return redis.error_reply('no such reservation')
end
for i = 1, #held, 2 do
    redis.call('HINCRBY', held[i], 'reserved', -held[i + 1])
    if ARGV[2] == 'sold' then
        redis.call('HINCRBY', held[i], 'on_hand', -held[i + 1])
    end
end
redis.call('DEL', KEYS[2])
redis.call('SET', KEYS[1], ARGV[2], 'NX', 'EX', ARGV[1])
return ARGV[2]
