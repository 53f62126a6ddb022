-- flows: the classes and flows that a script meets. Each is read once, and what has changed is written once, by save(), which comes before
-- each answer. So what is said of many jobs costs little more than of one.
--
-- class_of: jobs, V, or 0, 0, 0 where there is none. flow_of: as FLOW; of an owner who has none, all 0 and the weight 1. Whoever changes
-- one sets `changed`. O(1)
local classes, flows, told = {}, {}, {}
local function class_of(name)
  local its = classes[name]
  if not its then
    local text = call('HGET', P .. 's', name)
    its = text and {unpack_(CLASS, text)} or {0, 0, 0}
    classes[name] = its
  end
  return its
end
local function flow_of(class, owner)
  local all = flows[class]
  if not all then
    all = {}
    flows[class] = all
  end
  local its = all[owner]
  if not its then
    local text = not all[1] and call('HGET', P .. 'f|' .. class, owner)
    its = text and {unpack_(FLOW, text)} or {0, 0, 1, 0, 0, 0, 0, 0}
    all[owner] = its
  end
  return its
end
-- The class has no jobs any more.
local function close(name)
  call('HDEL', P .. 's', name)
  call('UNLINK', P .. 'f|' .. name, P .. 'i|' .. name)
  classes[name], flows[name] = {0, 0, 0}, {true}  -- [1]: nothing of it is in Redis
end
-- `set`: HSET, s, and what else it is to have.
local function save(set)
  for name, its in pairs(classes) do
    if its.changed then
      its.changed = nil
      set[#set + 1] = name
      set[#set + 1] = pack(CLASS, its[1], its[2], its[3])
    end
  end
  if set[3] then call(unpack(set)) end
  for class, all in pairs(flows) do
    local put, gone = {'HSET', P .. 'f|' .. class}, {'HDEL', P .. 'f|' .. class}
    for owner, its in pairs(all) do
      if owner ~= 1 and its.changed then
        if its.gone then
          gone[#gone + 1] = owner
        else
          put[#put + 1] = owner
          put[#put + 1] = pack(FLOW, its[1], its[2], its[3], its[4], its[5], its[6], its[7], its[8])
        end
        its.changed = nil
      end
    end
    if gone[3] then call(unpack(gone)) end
    if put[3] then call(unpack(put)) end
  end
  for home, ids in pairs(told) do
    told[home] = nil
    call('PUBLISH', P .. 'c|' .. home, 'over' .. ids)
  end
end
