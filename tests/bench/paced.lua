-- Each connection asks about every PAUSE milliseconds, drawn at random.
local pause = tonumber(os.getenv("PAUSE"))
function init() math.randomseed(os.getenv("SEED")) end
function delay() return math.floor(math.random() * 2 * pause + 0.5) end
