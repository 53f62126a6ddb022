-- wrk script: requests of many callers, prebuilt so that the client costs little.
-- Environment: NKEYS callers (default 100000), BODY bytes of a JSON body to POST (default: GET).
local n = tonumber(os.getenv("NKEYS") or 100000)
local size = tonumber(os.getenv("BODY") or 0)
local requests, i = {}, 0

function init(args)
  local head = (size > 0 and "POST " or "GET ") .. wrk.path .. " HTTP/1.1\r\nHost: bench\r\nX-Model: demo\r\nX-Api-Key: key"
  local tail = "\r\n\r\n"
  if size > 0 then
    local body = '{"model":"sim","prompt":"' .. string.rep("x", size - 27) .. '"}'
    tail = "\r\nContent-Type: application/json\r\nContent-Length: " .. #body .. "\r\n\r\n" .. body
  end
  for k = 1, n do requests[k] = head .. k .. tail end
end

function request()
  i = i % n + 1
  return requests[i]
end
