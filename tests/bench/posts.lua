-- wrk script: one POST of a chat, again and again. Environment: BODY bytes of the body, STREAM=1 asks for a stream,
-- HEADERS more header lines, "Name: value" and "|" between them.
local size = tonumber(os.getenv("BODY") or 1024)
local before = '{"model":"mock","stream":' .. (os.getenv("STREAM") == "1" and "true" or "false")
  .. ',"messages":[{"role":"user","content":"'
local after = '"}]}'
local body = before .. string.rep("x", size - #before - #after) .. after

wrk.method = "POST"
wrk.body = body
wrk.headers["Content-Type"] = "application/json"
for name, value in string.gmatch(os.getenv("HEADERS") or "", "([^|:]+): ([^|]+)") do
  wrk.headers[name] = value
end
