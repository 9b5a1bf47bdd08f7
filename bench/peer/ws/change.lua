-- KEYS: of each command its key and its SKU. ARGV: seconds a key is remembered, a channel,
-- of each command its SKU as JSON, set or add, and by how much. Answers what is left of
-- each, negative where there is not enough, and tells the channel of all changes at once.
local left, items = {}, {}
for i = 1, #KEYS / 2 do
    local key, row = KEYS[2 * i - 1], KEYS[2 * i]
    local sku, how, by = ARGV[3 * i], ARGV[3 * i + 1], ARGV[3 * i + 2]
    local was = redis.call('GET', key)
    if was then
        left[i] = tonumber(was)
    else
        local now = tonumber(by)
        if how == 'add' then
            now = now + tonumber(redis.call('GET', row) or 0)
        end
        left[i] = now
        if now >= 0 then
            local text = string.format('%.0f', now)
            redis.call('SET', row, text)
            redis.call('SET', key, text, 'NX', 'EX', ARGV[1])
            items[#items + 1] = '{"sku":' .. sku .. ',"on_hand":' .. text .. '}'
        end
    end
end
if #items > 0 then
    redis.call('PUBLISH', ARGV[2], '{"op":"stock","items":[' .. table.concat(items, ',') .. ']}')
end
return left
