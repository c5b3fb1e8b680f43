-- For wrk: uploads by the file API, each of other bytes under another name, by many accounts in turn.
--
--   wrk -s upload.lua URL -- ACCOUNTS SIZE
--
-- ACCOUNTS has lines `token ns seq`. Bodies do not compress: a random base with a number of its own in each 4 KiB,
-- so that no two have a block in common. Ends with one line for load.sh.
local ffi = require("ffi")
local threads = 0

function setup(thread)
    thread:set("number", threads)
    threads = threads + 1
end

function init(args)
    size = tonumber(args[2])
    tokens = {}
    for line in io.lines(args[1]) do tokens[#tokens + 1] = line:match("^%S+") end
    local chance = assert(io.open("/dev/urandom", "rb"))
    base = ffi.new("uint8_t[?]", size + 16)
    ffi.copy(base, chance:read(size), size)
    run = chance:read(8):gsub(".", function(c) return ("%02x"):format(c:byte()) end)
    seed = ffi.new("uint64_t[1]")
    ffi.copy(seed, chance:read(8), 8)
    chance:close()
    count = 0
    tail = (" HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\nAuthorization: Bearer "):format(wrk.headers["Host"], size)
end

function request()
    count = count + 1
    for at = 0, size - 1, 4096 do
        local stamp = ffi.cast("uint64_t *", base + at)
        stamp[0] = seed[0]
        stamp[1] = count
    end
    local token = tokens[(count * 7 + number) % #tokens + 1]
    local name = ("/load/%s-%d-%d"):format(run, number, count)
    return "POST /files/upload?uploadType=media&path=" .. name .. tail .. token .. "\r\n\r\n" .. ffi.string(base, size)
end

-- Requests, seconds, p50 and p99 (ms), answers that were no success, connections that failed.
function done(summary, latency)
    local e = summary.errors
    print(("load %d %.3f %.2f %.2f %d %d"):format(summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
        latency:percentile(99) / 1e3, e.status, e.connect + e.read + e.write + e.timeout))
end
