-- A Wireshark dissector of the replog wire protocol, version 1, written after protocol.md.
--
--   wireshark -X lua_script:tools/replog.lua
--   tshark -X lua_script:tools/replog.lua -i lo -f 'tcp portrange 9000-9002' -O replog
--
-- or copy it into the "Personal Lua Plugins" folder that Help > About Wireshark > Folders shows.
--
-- TCP ports 9000 to 9002 are taken as replog (a preference); on any other port a connection is
-- recognised by the header of its first frame. The numbers in brackets below are sections of
-- protocol.md. Filters worth knowing:
--
--   replog.type == "APPEND"      frames by name; replog.id == 7 finds a request and its answers
--   replog.record.seq == 300     wherever the entry 300 travels
--   replog.checksum.status == 0  frames whose checksum is wrong
--   replog.bad_frame || replog.bad_record || replog.refused
--
-- What the dissector does not verify is the chain digest of records: it would need the entry before.

local VERSION = 1
local MAGIC = 0x524C
local HEADER_BYTES = 16
local BODY_MAX = 16 * 1024 * 1024 + 64 * 1024
local RECORD_HEADER_BYTES = 48
local RECORD_BODY_MAX = 16 * 1024 * 1024 + 73
local PRODUCER_FLAG = 1

----------------------------------------------------------------------------------------------------
-- Names of numbers

-- [5]
local FRAME_TYPES = {
  [0x01] = "HELLO", [0x02] = "REFUSE",
  [0x10] = "APPEND", [0x11] = "ACK", [0x12] = "NACK", [0x13] = "HEARTBEAT", [0x14] = "HEARTBEAT_ACK",
  [0x15] = "ALIGN", [0x16] = "FETCH", [0x17] = "FETCHED",
  [0x40] = "APPEND_REQUEST", [0x41] = "APPEND_REPLY", [0x42] = "WAIT_REQUEST", [0x43] = "READ_REQUEST",
  [0x44] = "TAIL_REQUEST", [0x45] = "CANCEL", [0x46] = "ENTRIES", [0x47] = "REQUEST_REFUSED",
  [0x48] = "COMMAND", [0x49] = "COMMAND_REPLY",
}

-- [10.1]
local REQUEST_CODES = {
  [1] = "read-only", [2] = "bad-write-concern", [3] = "too-large", [4] = "mismatch",
  [5] = "duplicate-mismatch", [6] = "producer-gap", [7] = "producer-fenced", [8] = "unknown-producer",
  [9] = "aborted", [10] = "disk-full", [11] = "busy", [12] = "not-master", [13] = "recovering",
  [14] = "damaged", [15] = "stopping",
  [100] = "unknown-verb", [101] = "bad-option", [102] = "bad-value", [103] = "too-long",
  [104] = "not-http", [105] = "not-found", [106] = "not-ready", [107] = "unreadable", [108] = "denied",
  [109] = "conflict", [110] = "master-only", [111] = "secondary-only",
}

-- [10.2]
local REFUSE_CODES = {
  [1] = "bad-frame", [2] = "unknown-version", [3] = "unknown-frame", [4] = "frame-too-long",
  [5] = "bad-checksum", [6] = "no-introduction", [7] = "wrong-role", [8] = "wrong-node",
  [9] = "foreign-log", [10] = "stale-epoch", [11] = "epoch-taken", [12] = "ahead-of-master",
  [13] = "diverged", [14] = "damaged", [15] = "replaced", [16] = "busy", [17] = "stopping",
  [18] = "slow-reader",
}

-- [10.3]
local NACK_CODES = {
  [1] = "conflict", [2] = "mismatch", [3] = "bad-record", [4] = "hold-back-full", [5] = "disk-full",
  [6] = "injected-fault",
}

local ROLES = { [0] = "master", [1] = "secondary", [2] = "client" }
local CONCERNS = { [0] = "default", [1] = "nodes", [2] = "majority", [3] = "all" }
local ACK_KINDS = { [0] = "default", [1] = "stored", [2] = "received" }
local TIMEOUTS = { [0] = "default", [1] = "forever", [2] = "micros" }
local LEVELS = { [0] = "local", [1] = "committed", [2] = "all", [3] = "nodes" }
local STARTS = { [0] = "new", [1] = "from", [2] = "last" }
local OUTCOMES = { [0] = "ok", [1] = "pending", [2] = "unknown", [3] = "refused" }
local CHECKSUM_STATUS = { [0] = "bad", [1] = "good", [2] = "not verified" }
local CHECKSUM_BAD, CHECKSUM_GOOD, CHECKSUM_NOT_VERIFIED = 0, 1, 2

----------------------------------------------------------------------------------------------------
-- The protocol, its fields and what it can complain about

local replog = Proto("replog", "replog wire protocol")

-- Every field by its name behind "replog.". A field of the same meaning has one name in all messages.
local f = {
  magic = ProtoField.uint16("replog.magic", "Magic", base.HEX),
  version = ProtoField.uint8("replog.version", "Version"),
  type = ProtoField.uint8("replog.type", "Type", base.HEX, FRAME_TYPES),
  flags = ProtoField.uint32("replog.flags", "Flags", base.HEX),
  length = ProtoField.uint32("replog.length", "Body length"),
  checksum = ProtoField.uint32("replog.checksum", "Checksum", base.HEX),
  ["checksum.status"] = ProtoField.uint8("replog.checksum.status", "Checksum status", base.DEC, CHECKSUM_STATUS),

  version_min = ProtoField.uint8("replog.version_min", "Lowest version spoken"),
  version_max = ProtoField.uint8("replog.version_max", "Highest version spoken"),
  role = ProtoField.uint32("replog.role", "Role", base.DEC, ROLES),
  node_id = ProtoField.string("replog.node_id", "Node id"),
  peer_id = ProtoField.string("replog.peer_id", "Id of the node meant"),
  log_id = ProtoField.bytes("replog.log_id", "Log id"),
  epoch = ProtoField.uint64("replog.epoch", "Epoch"),
  run_id = ProtoField.uint64("replog.run_id", "Run id", base.HEX),
  ["epoch_table.epoch"] = ProtoField.uint64("replog.epoch_table.epoch", "Epoch of the table"),
  ["epoch_table.first"] = ProtoField.uint64("replog.epoch_table.first", "begins with entry"),
  stored = ProtoField.uint64("replog.stored", "Stored"),
  received = ProtoField.uint64("replog.received", "Received"),
  ["held.first"] = ProtoField.uint64("replog.held.first", "Held from"),
  ["held.last"] = ProtoField.uint64("replog.held.last", "Held to"),
  duplicates = ProtoField.uint64("replog.duplicates", "Duplicates"),
  tail_epoch = ProtoField.uint64("replog.tail_epoch", "Epoch of the last entry stored"),
  tail_digest = ProtoField.uint64("replog.tail_digest", "Digest of the last entry stored", base.HEX),
  settled = ProtoField.uint64("replog.settled", "Settled epoch"),
  commit = ProtoField.uint64("replog.commit", "Commit"),
  held_by = ProtoField.uint64("replog.held_by", "Held by at least"),
  vouches = ProtoField.bool("replog.vouches", "Vouches for its log"),
  roster = ProtoField.string("replog.roster", "Node of the roster"),
  master_addr = ProtoField.string("replog.master_addr", "Address of the master"),
  frame_bytes_max = ProtoField.uint32("replog.frame_bytes_max", "Largest body"),
  payload_bytes_max = ProtoField.uint32("replog.payload_bytes_max", "Largest payload"),
  window_bytes = ProtoField.uint64("replog.window_bytes", "Window in bytes"),

  ["refuse.code"] = ProtoField.uint16("replog.refuse.code", "Code", base.DEC, REFUSE_CODES),
  ["nack.code"] = ProtoField.uint16("replog.nack.code", "Code", base.DEC, NACK_CODES),
  ["refusal.code"] = ProtoField.uint16("replog.refusal.code", "Code", base.DEC, REQUEST_CODES),
  ["refusal.class"] = ProtoField.string("replog.refusal.class", "Class"),
  reason = ProtoField.string("replog.reason", "Reason"),
  detail = ProtoField.string("replog.detail", "Detail"),

  first = ProtoField.uint64("replog.first", "First entry"),
  count = ProtoField.uint32("replog.count", "Count"),
  previous_epoch = ProtoField.uint64("replog.previous_epoch", "Epoch of the entry before"),
  previous_digest = ProtoField.uint64("replog.previous_digest", "Digest of the entry before", base.HEX),
  seq = ProtoField.uint64("replog.seq", "Sequence number"),
  number = ProtoField.uint64("replog.number", "Number of the heartbeat"),
  last = ProtoField.uint64("replog.last", "Last entry"),
  last_epoch = ProtoField.uint64("replog.last_epoch", "Epoch of the last entry"),
  last_digest = ProtoField.uint64("replog.last_digest", "Digest of the last entry", base.HEX),

  id = ProtoField.uint64("replog.id", "Request id"),
  concern = ProtoField.uint32("replog.concern", "Write concern", base.DEC, CONCERNS),
  ["concern.nodes"] = ProtoField.uint16("replog.concern.nodes", "Nodes"),
  ack = ProtoField.uint32("replog.ack", "Holding means", base.DEC, ACK_KINDS),
  timeout = ProtoField.uint32("replog.timeout", "Timeout", base.DEC, TIMEOUTS),
  ["timeout.micros"] = ProtoField.uint64("replog.timeout.micros", "Microseconds"),
  ["producer.id"] = ProtoField.string("replog.producer.id", "Producer"),
  ["producer.number"] = ProtoField.uint64("replog.producer.number", "Number of the producer"),
  match_seq = ProtoField.uint64("replog.match_seq", "Only as entry"),
  atomic = ProtoField.bool("replog.atomic", "Atomic"),
  outcome = ProtoField.uint32("replog.outcome", "Outcome", base.DEC, OUTCOMES),
  need = ProtoField.uint16("replog.need", "Nodes asked for"),
  holders = ProtoField.string("replog.holders", "Held by the nodes of the roster"),
  from = ProtoField.uint64("replog.from", "From"),
  limit = ProtoField.uint64("replog.limit", "Limit"),
  level = ProtoField.uint32("replog.level", "Level", base.DEC, LEVELS),
  ["level.nodes"] = ProtoField.uint16("replog.level.nodes", "Nodes"),
  start = ProtoField.uint32("replog.start", "Start", base.DEC, STARTS),
  ["start.from"] = ProtoField.uint64("replog.start.from", "From"),
  ["start.last"] = ProtoField.uint64("replog.start.last", "Last"),
  next = ProtoField.uint64("replog.next", "Next"),
  ["end"] = ProtoField.bool("replog.end", "End"),
  line = ProtoField.string("replog.line", "Line"),
  text = ProtoField.string("replog.text", "Text"),
  ["payload.length"] = ProtoField.uint32("replog.payload.length", "Payload length"),
  payload = ProtoField.bytes("replog.payload", "Payload"),

  record = ProtoField.none("replog.record", "Record"),
  ["record.header_checksum"] = ProtoField.uint32("replog.record.header_checksum", "Header checksum", base.HEX),
  ["record.header_checksum.status"] = ProtoField.uint8(
    "replog.record.header_checksum.status", "Header checksum status", base.DEC, CHECKSUM_STATUS),
  ["record.body_checksum"] = ProtoField.uint32("replog.record.body_checksum", "Body checksum", base.HEX),
  ["record.body_checksum.status"] = ProtoField.uint8(
    "replog.record.body_checksum.status", "Body checksum status", base.DEC, CHECKSUM_STATUS),
  ["record.digest"] = ProtoField.uint64("replog.record.digest", "Digest", base.HEX),
  ["record.length"] = ProtoField.uint32("replog.record.length", "Body length"),
  ["record.flags"] = ProtoField.uint16("replog.record.flags", "Flags", base.HEX),
  ["record.flags.producer"] = ProtoField.bool(
    "replog.record.flags.producer", "Starts with a producer", 16, nil, PRODUCER_FLAG),
  ["record.reserved"] = ProtoField.uint16("replog.record.reserved", "Reserved", base.HEX),
  ["record.seq"] = ProtoField.uint64("replog.record.seq", "Sequence number"),
  ["record.epoch"] = ProtoField.uint64("replog.record.epoch", "Epoch"),
  ["record.time"] = ProtoField.absolute_time("replog.record.time", "Time", base.UTC),
  ["record.producer.id"] = ProtoField.string("replog.record.producer.id", "Producer"),
  ["record.producer.number"] = ProtoField.uint64("replog.record.producer.number", "Number of the producer"),
  ["record.payload_length"] = ProtoField.uint32("replog.record.payload_length", "Payload length"),
  ["record.payload"] = ProtoField.bytes("replog.record.payload", "Payload"),
}
for _, field in pairs(f) do
  replog.fields[#replog.fields + 1] = field
end

-- One for each outcome of section 2 by which a receiver ends the connection, one for records, and one
-- for what the nodes themselves complain about.
local complaints = {
  ["bad-frame"] = ProtoExpert.new(
    "replog.bad_frame", "Bad frame", expert.group.MALFORMED, expert.severity.ERROR),
  ["unknown-version"] = ProtoExpert.new(
    "replog.unknown_version", "Version not spoken", expert.group.PROTOCOL, expert.severity.ERROR),
  ["unknown-frame"] = ProtoExpert.new(
    "replog.unknown_frame", "Unknown type of frame", expert.group.PROTOCOL, expert.severity.ERROR),
  ["frame-too-long"] = ProtoExpert.new(
    "replog.frame_too_long", "Frame too long", expert.group.PROTOCOL, expert.severity.ERROR),
  ["bad-checksum"] = ProtoExpert.new(
    "replog.bad_checksum", "Bad checksum", expert.group.CHECKSUM, expert.severity.ERROR),
  ["bad-record"] = ProtoExpert.new(
    "replog.bad_record", "Bad record", expert.group.MALFORMED, expert.severity.ERROR),
  refused = ProtoExpert.new(
    "replog.refused", "Refused", expert.group.RESPONSE_CODE, expert.severity.NOTE),
}
for _, complaint in pairs(complaints) do
  replog.experts[#replog.experts + 1] = complaint
end

replog.prefs.ports = Pref.range(
  "TCP ports", "9000-9002", "Connections to or from these ports are replog; on others the first frame tells", 65535)
replog.prefs.verify = Pref.bool(
  "Verify checksums", true, "Compute the CRC-32C of frames and records; switch it off for very large captures")

----------------------------------------------------------------------------------------------------
-- CRC-32C [2]

-- Lua 5.2 comes with bit32, Wireshark up to 4.2 with bit; from 5.3 on the operators are part of the
-- language, which older versions cannot even read: hence the text.
local xor, shift_right, both
if bit32 then
  xor, shift_right, both = bit32.bxor, bit32.rshift, bit32.band
elseif bit then
  xor, shift_right, both = bit.bxor, bit.rshift, bit.band
else
  xor, shift_right, both = load([[
    return function(a, b) return a ~ b end, function(a, n) return a >> n end, function(a, b) return a & b end
  ]])()
end

local crc_table = {}
for value = 0, 255 do
  local entry = value
  for _ = 1, 8 do
    if entry % 2 == 1 then
      entry = xor(shift_right(entry, 1), 0x82F63B78)
    else
      entry = shift_right(entry, 1)
    end
  end
  crc_table[value] = entry
end

-- Adds the bytes `from` to `to` (of a string, counted from 1) to a checksum that begins as FFFFFFFF
-- and is finished by `crc_finish`.
local function crc_add(crc, data, from, to)
  for at = from, to do
    crc = xor(crc_table[both(xor(crc, data:byte(at)), 0xFF)], shift_right(crc, 8))
  end
  return crc
end

local function crc_finish(crc)
  -- `bit` counts from -2^31, hence the remainder.
  return xor(crc, 0xFFFFFFFF) % 0x100000000
end

local function crc32c(data, from, to)
  return crc_finish(crc_add(0xFFFFFFFF, data, from, to))
end

----------------------------------------------------------------------------------------------------
-- Heads [3]. A cursor takes bytes from the front of a body. Bytes that break a rule raise a complaint,
-- a table { code, reason, range }; any other error is a mistake of this file and is let through.

local function complain(code, reason, range)
  error({ code = code, reason = reason, range = range }, 0)
end

local Cursor = {}
Cursor.__index = Cursor

local function cursor_over(tvb, from, to)
  return setmetatable({ tvb = tvb, at = from, stop = to }, Cursor)
end

function Cursor:left()
  return self.stop - self.at
end

function Cursor:take(bytes)
  if bytes > self:left() then
    complain("bad-frame", bytes .. " bytes wanted, " .. self:left() .. " left")
  end
  local range = self.tvb(self.at, bytes)
  self.at = self.at + bytes
  return range
end

local MARKERS = { [0xFB] = 2, [0xFC] = 4, [0xFD] = 8, [0xFE] = 16 }

-- The number at the cursor, at most `width` bytes wide. Returns the range it stands in, and where in
-- it the value begins and how wide it is.
function Cursor:integer(width)
  local from = self.at
  local first = self:take(1):uint()
  if first < 0xFB then
    return self.tvb(from, 1), 0, 1
  end
  local wide = MARKERS[first]
  if not wide or wide > width then
    complain("bad-frame", string.format("marker %02x in a number of %d bytes", first, width), self.tvb(from, 1))
  end
  self:take(wide)
  return self.tvb(from, 1 + wide), 1, wide
end

-- A number as a UInt64, for fields of 64 bits.
local function integer64(cursor)
  local range, from, wide = cursor:integer(8)
  return range, range(from, wide):le_uint64()
end

-- A number as a number of Lua. Above 2^53 it is rounded: only for lengths, counts and small numbers.
local function small(cursor, width)
  local range, from, wide = cursor:integer(width)
  return range, range(from, wide):le_uint64():tonumber()
end

-- Readers: each reads one value, adds it to the tree under the name, and returns it.
local read = {}

function read.u8(cursor, tree, name)
  local range = cursor:take(1)
  tree:add(f[name], range)
  return range:uint()
end

function read.u16(cursor, tree, name)
  local range, value = small(cursor, 2)
  return value, tree:add(f[name], range, value)
end

function read.u32(cursor, tree, name)
  local range, value = small(cursor, 4)
  return value, tree:add(f[name], range, value)
end

function read.u64(cursor, tree, name)
  local range, value = integer64(cursor)
  return value, tree:add(f[name], range, value)
end

function read.bool(cursor, tree, name)
  local range = cursor:take(1)
  if range:uint() > 1 then
    complain("bad-frame", string.format("a bool of %02x", range:uint()), range)
  end
  tree:add(f[name], range, range:uint() == 1)
  return range:uint() == 1
end

function read.string(cursor, tree, name)
  local from = cursor.at
  local _, bytes = small(cursor, 8)
  cursor:take(bytes)
  local range = cursor.tvb(from, cursor.at - from)
  local value = bytes > 0 and cursor.tvb(cursor.at - bytes, bytes):string(ENC_UTF_8) or ""
  tree:add(f[name], range, value)
  return value
end

function read.bytes16(cursor, tree, name)
  tree:add(f[name], cursor:take(16))
end

-- The number of a variant; `names` has one for each that exists.
function read.variant(cursor, tree, name, names)
  local range, value = small(cursor, 4)
  if not names[value] then
    complain("bad-frame", "variant " .. value .. " of " .. name, range)
  end
  tree:add(f[name], range, value)
  return value, names[value]
end

-- Calls `item` if the option is there.
function read.option(cursor, item)
  local range = cursor:take(1)
  if range:uint() > 1 then
    complain("bad-frame", string.format("an option of %02x", range:uint()), range)
  end
  if range:uint() == 1 then
    item()
  end
end

-- Calls `item` for each item of a list, with its place from 1.
function read.list(cursor, item)
  local range, count = small(cursor, 8)
  -- Every item takes a byte at least, so that a count beyond what is left is false.
  if count > cursor:left() then
    complain("bad-frame", "a list of " .. count .. " items in " .. cursor:left() .. " bytes", range)
  end
  for place = 1, count do
    item(place)
  end
end

-- Bit k of a u128 is the k-th node of the roster: shown as their places, the master being 0.
function read.holders(cursor, tree, name)
  local range, from, wide = cursor:integer(16)
  local nodes = {}
  for byte = 0, wide - 1 do
    local bits = range(from + byte, 1):uint()
    for place = 0, 7 do
      if bits % 2 == 1 then
        nodes[#nodes + 1] = byte * 8 + place
      end
      bits = (bits - bits % 2) / 2
    end
  end
  -- %d, because the division above makes floats in newer versions of Lua.
  for place, node in ipairs(nodes) do
    nodes[place] = string.format("%d", node)
  end
  local value = table.concat(nodes, ", ")
  tree:add(f[name], range, value)
  return value
end

function read.levels(cursor, tree)
  read.u64(cursor, tree, "commit")
  read.list(cursor, function(place)
    local seq, item = read.u64(cursor, tree, "held_by")
    item:set_text("Held by at least " .. place .. ": " .. tostring(seq))
  end)
end

function read.concern(cursor, tree)
  local _, concern = read.variant(cursor, tree, "concern", CONCERNS)
  if concern == "nodes" then
    return "w=" .. read.u16(cursor, tree, "concern.nodes")
  end
  return concern == "default" and "w by default" or "w=" .. concern
end

function read.timeout(cursor, tree)
  local _, timeout = read.variant(cursor, tree, "timeout", TIMEOUTS)
  if timeout == "micros" then
    read.u64(cursor, tree, "timeout.micros")
  end
end

function read.level(cursor, tree)
  local _, level = read.variant(cursor, tree, "level", LEVELS)
  if level == "nodes" then
    return read.u16(cursor, tree, "level.nodes") .. " nodes"
  end
  return level
end

function read.refusal(cursor, tree)
  local code, item = read.u16(cursor, tree, "refusal.code")
  local class = code < 100 and "REJECTED" or "ERR"
  tree:add(f["refusal.class"], class):set_generated()
  local detail = read.string(cursor, tree, "detail")
  local name = REQUEST_CODES[code] or "code " .. code
  item:add_proto_expert_info(complaints.refused, class .. " " .. name .. " " .. detail)
  return class .. " " .. name
end

----------------------------------------------------------------------------------------------------
-- Records [4]

local function add_status(tree, name, range, item, announced, computed)
  local status = CHECKSUM_NOT_VERIFIED
  if computed then
    status = announced == computed and CHECKSUM_GOOD or CHECKSUM_BAD
  end
  tree:add(f[name], range, status):set_generated()
  if status == CHECKSUM_BAD then
    item:add_proto_expert_info(
      complaints["bad-checksum"], string.format("Bad checksum: %08x, computed %08x", announced, computed))
  end
end

local function dissect_record(cursor, tree, expected_seq, newest)
  local from = cursor.at
  if cursor:left() < RECORD_HEADER_BYTES then
    complain("bad-record", cursor:left() .. " bytes of a record's header")
  end
  local head = cursor:take(RECORD_HEADER_BYTES)
  local length = head(16, 4):le_uint()
  if length > RECORD_BODY_MAX or length > cursor:left() then
    complain("bad-record", "a record with a body of " .. length .. " bytes, " .. cursor:left() .. " left", head(16, 4))
  end
  cursor:take(length)
  local whole = cursor.tvb(from, RECORD_HEADER_BYTES + length)
  local raw = replog.prefs.verify and whole:raw()
  local seq = head(24, 8):le_uint64()

  local record = tree:add(f.record, whole)
  local item = record:add_le(f["record.header_checksum"], head(0, 4))
  add_status(record, "record.header_checksum.status", head(0, 4), item, head(0, 4):le_uint(),
    raw and crc32c(raw, 5, RECORD_HEADER_BYTES))
  item = record:add_le(f["record.body_checksum"], head(4, 4))
  add_status(record, "record.body_checksum.status", head(4, 4), item, head(4, 4):le_uint(),
    raw and crc32c(raw, RECORD_HEADER_BYTES + 1, #raw))
  record:add_le(f["record.digest"], head(8, 8))
  record:add_le(f["record.length"], head(16, 4))
  local flags = head(20, 2):le_uint()
  item = record:add_le(f["record.flags"], head(20, 2))
  item:add_le(f["record.flags.producer"], head(20, 2))
  if flags > PRODUCER_FLAG then
    item:add_proto_expert_info(complaints["bad-record"], string.format("Flags %#x", flags))
  end
  item = record:add_le(f["record.reserved"], head(22, 2))
  if head(22, 2):le_uint() ~= 0 then
    item:add_proto_expert_info(complaints["bad-record"], "Reserved bytes are not 0")
  end
  item = record:add_le(f["record.seq"], head(24, 8))
  if expected_seq and seq ~= expected_seq then
    item:add_proto_expert_info(
      complaints["bad-record"], "Entry " .. tostring(seq) .. " where " .. tostring(expected_seq) .. " must stand")
  end
  item = record:add_le(f["record.epoch"], head(32, 8))
  if newest and newest < head(32, 8):le_uint64() then
    item:add_proto_expert_info(
      complaints["bad-record"], "An epoch above that of the frame, " .. tostring(newest))
  end
  local time = head(40, 8):le_uint64()
  local seconds, milliseconds = (time / 1000):tonumber(), (time % 1000):tonumber()
  -- NSTime has 32 bits of seconds on some machines; what does not fit is no time of a clock.
  if seconds < 0x80000000 then
    record:add(f["record.time"], head(40, 8), NSTime.new(seconds, milliseconds * 1000000))
  end

  local body = cursor_over(cursor.tvb, from + RECORD_HEADER_BYTES, cursor.at)
  local producer = ""
  if flags % 2 == 1 then
    local id_length = body:left() > 0 and body:take(1):uint() or 0
    if id_length < 1 or id_length > 64 or id_length + 8 > body:left() then
      complain("bad-record", "the producer does not fit", whole)
    end
    local id = body:take(id_length)
    record:add(f["record.producer.id"], id)
    record:add_le(f["record.producer.number"], body:take(8))
    producer = " of producer " .. id:string()
  end
  record:add(f["record.payload_length"], body:left()):set_generated()
  local bytes = body:left()
  if bytes > 0 then
    record:add(f["record.payload"], body:take(bytes))
  end
  record:set_text("Record " .. tostring(seq) .. ", " .. bytes .. " bytes" .. producer)
end

-- The tail of an APPEND, FETCHED or ENTRIES: exactly `count` records from `first` on, of epochs up to `newest` if the
-- frame has one.
local function dissect_records(cursor, tree, first, count, newest)
  for place = 0, count - 1 do
    dissect_record(cursor, tree, first + place, newest)
  end
  if cursor:left() > 0 then
    complain("bad-record", cursor:left() .. " bytes behind the last record", cursor:take(cursor:left()))
  end
end

local function shown_range(first, count)
  if count == 0 then
    return "none"
  elseif count == 1 then
    return tostring(first)
  end
  return tostring(first) .. "-" .. tostring(first + (count - 1))
end

----------------------------------------------------------------------------------------------------
-- Messages [6]: each reads its head (and tail) and returns what the list of packets says about it

local messages = {}

function messages.HELLO(cursor, tree)
  read.u8(cursor, tree, "version_min")
  read.u8(cursor, tree, "version_max")
  local _, role = read.variant(cursor, tree, "role", ROLES)
  local id = read.string(cursor, tree, "node_id")
  local peer = read.string(cursor, tree, "peer_id")
  read.option(cursor, function() read.bytes16(cursor, tree, "log_id") end)
  local epoch = read.u64(cursor, tree, "epoch")
  read.u64(cursor, tree, "run_id")
  read.list(cursor, function()
    read.u64(cursor, tree, "epoch_table.epoch")
    read.u64(cursor, tree, "epoch_table.first")
  end)
  local stored = read.u64(cursor, tree, "stored")
  read.u64(cursor, tree, "tail_epoch")
  read.u64(cursor, tree, "tail_digest")
  read.u64(cursor, tree, "settled")
  read.u64(cursor, tree, "commit")
  read.bool(cursor, tree, "vouches")
  read.list(cursor, function() read.string(cursor, tree, "roster") end)
  read.string(cursor, tree, "master_addr")
  read.u32(cursor, tree, "frame_bytes_max")
  read.u32(cursor, tree, "payload_bytes_max")
  read.u64(cursor, tree, "window_bytes")
  local info = role .. (id == "" and "" or " " .. id) .. (peer == "" and "" or " to " .. peer)
  if role == "client" then
    return info
  end
  return info .. " epoch=" .. tostring(epoch) .. " stored=" .. tostring(stored)
end

function messages.REFUSE(cursor, tree)
  local code, item = read.u16(cursor, tree, "refuse.code")
  read.u64(cursor, tree, "epoch")
  local reason = read.string(cursor, tree, "reason")
  local name = REFUSE_CODES[code] or "code " .. code
  item:add_proto_expert_info(complaints.refused, name .. ": " .. reason)
  return name
end

function messages.APPEND(cursor, tree)
  local epoch = read.u64(cursor, tree, "epoch")
  local first = read.u64(cursor, tree, "first")
  local count = read.u32(cursor, tree, "count")
  read.u64(cursor, tree, "previous_epoch")
  read.u64(cursor, tree, "previous_digest")
  read.levels(cursor, tree)
  dissect_records(cursor, tree, first, count, epoch)
  return shown_range(first, count)
end

function messages.ACK(cursor, tree)
  read.u64(cursor, tree, "epoch")
  local stored = read.u64(cursor, tree, "stored")
  local received = read.u64(cursor, tree, "received")
  local held = ""
  read.list(cursor, function()
    local first = read.u64(cursor, tree, "held.first")
    local last = read.u64(cursor, tree, "held.last")
    held = held .. " held=" .. tostring(first) .. "-" .. tostring(last)
  end)
  read.u64(cursor, tree, "duplicates")
  return "stored=" .. tostring(stored) .. " received=" .. tostring(received) .. held
end

function messages.NACK(cursor, tree)
  read.u64(cursor, tree, "epoch")
  local seq = read.u64(cursor, tree, "seq")
  local code, item = read.u16(cursor, tree, "nack.code")
  local reason = read.string(cursor, tree, "reason")
  local name = NACK_CODES[code] or "code " .. code
  item:add_proto_expert_info(complaints.refused, name .. ": " .. reason)
  return tostring(seq) .. " " .. name
end

function messages.HEARTBEAT(cursor, tree)
  read.u64(cursor, tree, "epoch")
  local number = read.u64(cursor, tree, "number")
  read.levels(cursor, tree)
  return tostring(number)
end

function messages.HEARTBEAT_ACK(cursor, tree)
  read.u64(cursor, tree, "epoch")
  return tostring(read.u64(cursor, tree, "number"))
end

function messages.ALIGN(cursor, tree)
  read.u64(cursor, tree, "epoch")
  local last = read.u64(cursor, tree, "last")
  read.u64(cursor, tree, "last_epoch")
  read.u64(cursor, tree, "last_digest")
  return "last=" .. tostring(last)
end

function messages.FETCH(cursor, tree)
  read.u64(cursor, tree, "epoch")
  local first = read.u64(cursor, tree, "first")
  local last = read.u64(cursor, tree, "last")
  return tostring(first) .. "-" .. tostring(last)
end

function messages.FETCHED(cursor, tree)
  local epoch = read.u64(cursor, tree, "epoch")
  local first = read.u64(cursor, tree, "first")
  local count = read.u32(cursor, tree, "count")
  dissect_records(cursor, tree, first, count, epoch)
  return count == 0 and tostring(first) .. " none" or shown_range(first, count)
end

function messages.APPEND_REQUEST(cursor, tree)
  local id = read.u64(cursor, tree, "id")
  local count = read.u32(cursor, tree, "count")
  local concern = read.concern(cursor, tree)
  read.variant(cursor, tree, "ack", ACK_KINDS)
  read.timeout(cursor, tree)
  read.option(cursor, function()
    read.string(cursor, tree, "producer.id")
    read.u64(cursor, tree, "producer.number")
  end)
  read.option(cursor, function() read.u64(cursor, tree, "match_seq") end)
  read.bool(cursor, tree, "atomic")
  for _ = 1, count do
    local range = cursor:take(4)
    tree:add_le(f["payload.length"], range)
    local bytes = range:le_uint()
    if bytes > 0 then
      tree:add(f.payload, cursor:take(bytes))
    end
  end
  return "id=" .. shown_range(id, count) .. " " .. concern
end

function messages.APPEND_REPLY(cursor, tree)
  local id = read.u64(cursor, tree, "id")
  local count = read.u32(cursor, tree, "count")
  local info = "id=" .. shown_range(id, count)
  local _, outcome = read.variant(cursor, tree, "outcome", OUTCOMES)
  if outcome == "refused" then
    return info .. " " .. read.refusal(cursor, tree)
  end
  local seq = read.u64(cursor, tree, "seq")
  read.u64(cursor, tree, "epoch")
  read.u16(cursor, tree, "need")
  read.holders(cursor, tree, "holders")
  return info .. " " .. outcome .. " seq=" .. shown_range(seq, count)
end

function messages.WAIT_REQUEST(cursor, tree)
  local id = read.u64(cursor, tree, "id")
  local seq = read.u64(cursor, tree, "seq")
  local concern = read.concern(cursor, tree)
  read.variant(cursor, tree, "ack", ACK_KINDS)
  read.timeout(cursor, tree)
  return "id=" .. tostring(id) .. " seq=" .. tostring(seq) .. " " .. concern
end

function messages.READ_REQUEST(cursor, tree)
  local id = read.u64(cursor, tree, "id")
  local from = read.u64(cursor, tree, "from")
  read.option(cursor, function() read.u64(cursor, tree, "limit") end)
  return "id=" .. tostring(id) .. " from=" .. tostring(from) .. " level=" .. read.level(cursor, tree)
end

function messages.TAIL_REQUEST(cursor, tree)
  local id = read.u64(cursor, tree, "id")
  local _, start = read.variant(cursor, tree, "start", STARTS)
  if start ~= "new" then
    start = start .. "=" .. tostring(read.u64(cursor, tree, "start." .. start))
  end
  return "id=" .. tostring(id) .. " " .. start .. " level=" .. read.level(cursor, tree)
end

function messages.CANCEL(cursor, tree)
  return "id=" .. tostring(read.u64(cursor, tree, "id"))
end

function messages.ENTRIES(cursor, tree)
  local id = read.u64(cursor, tree, "id")
  local first = read.u64(cursor, tree, "first")
  local count = read.u32(cursor, tree, "count")
  read.u64(cursor, tree, "next")
  read.u64(cursor, tree, "commit")
  local last = read.bool(cursor, tree, "end")
  dissect_records(cursor, tree, first, count)
  return "id=" .. tostring(id) .. " " .. shown_range(first, count) .. (last and " end" or "")
end

function messages.REQUEST_REFUSED(cursor, tree)
  local id = read.u64(cursor, tree, "id")
  return "id=" .. tostring(id) .. " " .. read.refusal(cursor, tree)
end

local function dissect_text(cursor, tree, name)
  local id = read.u64(cursor, tree, "id")
  local last = read.bool(cursor, tree, "end")
  local bytes = cursor:left()
  if bytes > 0 then
    local range = cursor:take(bytes)
    tree:add(f[name], range, range:string(ENC_UTF_8))
  end
  return id, last
end

function messages.COMMAND(cursor, tree)
  local id = dissect_text(cursor, tree, "line")
  return "id=" .. tostring(id)
end

function messages.COMMAND_REPLY(cursor, tree)
  local id, last = dissect_text(cursor, tree, "text")
  return "id=" .. tostring(id) .. (last and " end" or "")
end

----------------------------------------------------------------------------------------------------
-- Frames [2]

-- The body of a frame. Returns what the list of packets says about it.
local function dissect_body(tvb, at, length, tree, name)
  local cursor = cursor_over(tvb, at, at + length)
  local ok, result = pcall(function()
    local info = messages[name](cursor, tree)
    if cursor:left() > 0 then
      complain("bad-frame", cursor:left() .. " bytes behind " .. name, cursor:take(cursor:left()))
    end
    return info
  end)
  if ok then
    return result
  elseif type(result) ~= "table" or not result.code then
    error(result, 0)
  end
  local item = result.range and tree:add(result.range, result.reason) or tree
  item:add_proto_expert_info(complaints[result.code], result.reason)
  return result.code .. ": " .. result.reason
end

-- What is wrong with the header at `at`, of which `left` bytes are there: a code and a reason, or nil.
-- A receiver judges in this order, each thing as soon as it is there.
local function judge_header(tvb, at, left)
  if tvb(at, 1):uint() ~= 0x52 or left > 1 and tvb(at, 2):uint() ~= MAGIC then
    return "bad-frame", "a frame begins with 52 4c"
  elseif left > 2 and tvb(at + 2, 1):uint() ~= VERSION then
    return "unknown-version", "version " .. tvb(at + 2, 1):uint()
  elseif left < HEADER_BYTES then
    return nil
  elseif tvb(at + 4, 4):le_uint() ~= 0 then
    return "bad-frame", "flags are not 0"
  elseif tvb(at + 8, 4):le_uint() > BODY_MAX then
    return "frame-too-long", tvb(at + 8, 4):le_uint() .. " bytes, at most " .. BODY_MAX
  end
  return nil
end

-- A whole frame. Returns its line for the list of packets, and whether what follows can be trusted.
local function dissect_frame(tvb, at, length, root)
  local tree = root:add(replog, tvb(at, HEADER_BYTES + length))
  tree:add(f.magic, tvb(at, 2))
  tree:add(f.version, tvb(at + 2, 1))
  local type_item = tree:add(f.type, tvb(at + 3, 1))
  tree:add_le(f.flags, tvb(at + 4, 4))
  tree:add_le(f.length, tvb(at + 8, 4))
  local checksum = tvb(at + 12, 4)
  local checksum_item = tree:add_le(f.checksum, checksum)
  local computed
  if replog.prefs.verify then
    local raw = tvb(at, HEADER_BYTES + length):raw()
    computed = crc_finish(crc_add(crc_add(0xFFFFFFFF, raw, 1, 12), raw, HEADER_BYTES + 1, #raw))
  end
  add_status(tree, "checksum.status", checksum, checksum_item, checksum:le_uint(), computed)
  if computed and computed ~= checksum:le_uint() then
    tree:append_text(", bad checksum")
    return "[bad checksum]", false
  end

  local name = FRAME_TYPES[tvb(at + 3, 1):uint()]
  if not name then
    local reason = string.format("unknown type 0x%02x", tvb(at + 3, 1):uint())
    type_item:add_proto_expert_info(complaints["unknown-frame"], reason)
    tree:append_text(", " .. reason)
    return "[" .. reason .. "]", false
  end
  local line = name .. " " .. dissect_body(tvb, at + HEADER_BYTES, length, tree, name)
  tree:append_text(", " .. line)
  return line, true
end

local tcp_stream = Field.new("tcp.stream")
-- Since which packet a TCP stream is known to be replog. Other protocols use these ports, too, and a
-- capture may begin in the middle of a frame: what comes before the first frame is not judged.
local known_since = {}

function replog.init()
  known_since = {}
end

local function is_known(pinfo)
  local since = known_since[tcp_stream().value]
  return since and since <= pinfo.number
end

local function note_known(pinfo)
  local stream = tcp_stream().value
  known_since[stream] = math.min(known_since[stream] or pinfo.number, pinfo.number)
end

function replog.dissector(tvb, pinfo, root)
  local bytes = tvb:reported_length_remaining()
  -- A packet that was not captured whole cannot be cut into frames.
  if bytes == 0 or tvb:len() < bytes then
    return 0
  end
  local code, reason = judge_header(tvb, 0, bytes)
  if code and not is_known(pinfo) then
    return 0
  elseif not code and bytes >= HEADER_BYTES then
    note_known(pinfo)
  end
  pinfo.cols.protocol = "replog"
  -- What stays after clearing is what TCP keeps: a remark such as "[TCP Window Full] ", or the frame
  -- that ended in this packet and was put together from several.
  pinfo.cols.info:clear()
  local kept = tostring(pinfo.cols.info)
  local separator = (kept == "" or kept:sub(-2) == "] ") and "" or " | "
  local function tell(line)
    pinfo.cols.info:append(separator .. line)
    separator = " | "
  end
  local at = 0
  while at < bytes do
    local left = bytes - at
    code, reason = judge_header(tvb, at, left)
    if code then
      -- Here the receiver ends the connection: there is no next frame to look for.
      local tree = root:add(replog, tvb(at, left), "replog, not a frame")
      tree:add_proto_expert_info(complaints[code], reason)
      tell("[" .. code .. ": " .. reason .. "]")
      break
    end
    local missing
    if left < HEADER_BYTES then
      missing = DESEGMENT_ONE_MORE_SEGMENT
    else
      local whole = HEADER_BYTES + tvb(at + 8, 4):le_uint()
      if left < whole then
        missing = whole - left
      end
    end
    if missing then
      pinfo.desegment_offset = at
      pinfo.desegment_len = missing
      tell("[part of a frame]")
      break
    end
    local length = tvb(at + 8, 4):le_uint()
    local line, trusted = dissect_frame(tvb, at, length, root)
    tell(line)
    at = at + HEADER_BYTES + length
    if not trusted then
      break
    end
  end
  return bytes
end

----------------------------------------------------------------------------------------------------
-- Which connections are replog

-- The first frame of a connection is a HELLO or, from a node that has no room, a REFUSE. A capture
-- may begin later, so that any known type will do; but the whole header must be there and right.
local function recognise(tvb, pinfo, root)
  if tvb:len() < HEADER_BYTES or judge_header(tvb, 0, tvb:len()) or not FRAME_TYPES[tvb(3, 1):uint()] then
    return false
  end
  pinfo.conversation = replog
  replog.dissector(tvb, pinfo, root)
  return true
end

replog:register_heuristic("tcp", recognise)

local tcp_ports = DissectorTable.get("tcp.port")
local ports_now = replog.prefs.ports
tcp_ports:add(ports_now, replog)

function replog.prefs_changed()
  if ports_now ~= replog.prefs.ports then
    tcp_ports:remove(ports_now, replog)
    ports_now = replog.prefs.ports
    tcp_ports:add(ports_now, replog)
  end
end
