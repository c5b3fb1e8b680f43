-- For wrk: long polls of many accounts in turn, each for as long as the server holds one.
--
--   wrk -s poll.lua URL -- ACCOUNTS FIRST
--
-- ACCOUNTS has lines `token ns seq`; the first request is that of line FIRST.
function init(args)
    polls = {}
    for line in io.lines(args[1]) do
        local token, ns, seq = line:match("^(%S+) (%S+) (%S+)$")
        local body = ('{"cursors":[{"ns":%s,"seq":%s}],"timeout_secs":90}'):format(ns, seq)
        local headers = { Authorization = "Bearer " .. token, ["x-drivefs-wire"] = "1" }
        polls[#polls + 1] = wrk.format("POST", "/sync/v1/poll", headers, body)
    end
    next = tonumber(args[2])
end

function request()
    next = next % #polls + 1
    return polls[next]
end

function done(summary)
    local e = summary.errors
    print(("load %d %d %d"):format(summary.requests, e.status, e.connect + e.read + e.write))
end
