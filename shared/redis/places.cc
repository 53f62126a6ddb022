#include "shared/redis/places.h"

#include <arpa/inet.h>

#include <array>
#include <charconv>
#include <utility>

#include "shared/redis/answer.h"

namespace penstock::redis {
namespace {

constexpr size_t kMostServers = 1024;
constexpr long long kMostPort = 65535;

// CRC16-XMODEM.
constexpr std::array<uint16_t, 256> kCrc = [] {
  constexpr unsigned kPolynomial = 0x1021, kTop = 0x8000;
  std::array<uint16_t, 256> table{};
  for (unsigned byte = 0; byte < table.size(); ++byte) {
    unsigned crc = byte << 8;
    for (int bit = 0; bit < 8; ++bit) {
      crc = crc << 1 ^ ((crc & kTop) != 0 ? kPolynomial : 0);
    }
    table[byte] = static_cast<uint16_t>(crc);
  }
  return table;
}();

template <class Number>
bool read_number(std::string_view text, Number least, Number most, Number& number) noexcept {
  const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), number);
  return fault == std::errc() && end == text.data() + text.size() && number >= least &&
         number <= most;
}

// No control characters, and as long as a name may be: it is logged.
bool is_host(std::string_view host) noexcept {
  constexpr size_t kMost = 253;
  if (host.empty() || host.size() > kMost) {
    return false;
  }
  for (const char c : host) {
    if (c <= ' ' || c > '~' || c == '/') {
      return false;
    }
  }
  return true;
}

bool is_slot(const redisReply& answer) noexcept {
  return answer.type == REDIS_REPLY_INTEGER && answer.integer >= 0 && answer.integer < kSlots;
}

// A node that knows no address of its own is where it was asked.
std::optional<Address> read_node(const redisReply& node, const Address& asked) {
  if (node.type != REDIS_REPLY_ARRAY || node.elements < 2 ||
      node.element[1]->type != REDIS_REPLY_INTEGER) {
    return std::nullopt;
  }
  const redisReply& host = *node.element[0];
  const long long port = node.element[1]->integer;
  const std::string_view text = is_text(host) ? text_of(host) : "";
  if (port < 1 || port > kMostPort || text == "?" || (!text.empty() && !is_host(text)) ||
      (!is_text(host) && host.type != REDIS_REPLY_NIL)) {
    return std::nullopt;
  }
  return Address{{}, text.empty() ? asked.host : std::string(text), static_cast<int>(port)};
}

}  // namespace

std::string text_of(const Address& address) {
  if (!address.path.empty()) {
    return "unix:" + address.path;
  }
  const bool brackets = address.host.find(':') != std::string::npos;
  return (brackets ? "[" + address.host + "]" : address.host) + ":" + std::to_string(address.port);
}

bool is_number(const std::string& host) noexcept {
  in6_addr number;
  return inet_pton(AF_INET, host.c_str(), &number) == 1 ||
         inet_pton(AF_INET6, host.c_str(), &number) == 1;
}

unsigned slot_of(std::string_view key) noexcept {
  if (const size_t open = key.find('{'); open != std::string_view::npos) {
    const size_t close = key.find('}', open + 1);
    if (close != std::string_view::npos && close != open + 1) {
      key = key.substr(open + 1, close - open - 1);
    }
  }
  unsigned crc = 0;
  for (const char c : key) {
    crc = (crc << 8 ^ kCrc[(crc >> 8 ^ static_cast<uint8_t>(c)) & 0xff]) & 0xffff;
  }
  return crc % kSlots;
}

Places Places::all_at(Address server) {
  Places places;
  places.servers.push_back(std::move(server));
  places.ranges.push_back({0, kSlots - 1, 0});
  return places;
}

std::optional<Places> read_master(const redisReply& answer) {
  if (answer.type != REDIS_REPLY_ARRAY || answer.elements != 2 || !is_text(*answer.element[0]) ||
      !is_text(*answer.element[1])) {
    return std::nullopt;
  }
  const redisReply& host = *answer.element[0];
  const redisReply& port = *answer.element[1];
  long long number = 0;
  if (!is_host(text_of(host)) || !read_number(text_of(port), 1LL, kMostPort, number)) {
    return std::nullopt;
  }
  return Places::all_at({{}, std::string(text_of(host)), static_cast<int>(number)});
}

std::optional<Places> read_slots(const redisReply& answer, const Address& asked) {
  if (answer.type != REDIS_REPLY_ARRAY || answer.elements == 0 || answer.elements > kSlots) {
    return std::nullopt;
  }
  Places places;
  for (size_t i = 0; i < answer.elements; ++i) {
    const redisReply& range = *answer.element[i];
    if (range.type != REDIS_REPLY_ARRAY || range.elements < 3 || !is_slot(*range.element[0]) ||
        !is_slot(*range.element[1]) || range.element[0]->integer > range.element[1]->integer) {
      return std::nullopt;
    }
    std::optional<Address> master = read_node(*range.element[2], asked);
    if (!master) {
      continue;  // nobody has them
    }
    size_t server = 0;
    while (server < places.servers.size() && places.servers[server] != *master) {
      ++server;
    }
    if (server == kMostServers) {
      return std::nullopt;
    }
    if (server == places.servers.size()) {
      places.servers.push_back(std::move(*master));
    }
    places.ranges.push_back({static_cast<unsigned>(range.element[0]->integer),
                             static_cast<unsigned>(range.element[1]->integer), server});
  }
  return places.ranges.empty() ? std::nullopt : std::optional(std::move(places));
}

std::optional<Moved> read_moved(std::string_view error, const Address& asked) {
  Moved moved;
  moved.for_now = error.starts_with("ASK ");
  if (!moved.for_now && !error.starts_with("MOVED ")) {
    return std::nullopt;
  }
  error.remove_prefix(error.find(' ') + 1);
  const size_t space = error.find(' ');
  const size_t colon = error.rfind(':');
  if (space == std::string_view::npos || colon == std::string_view::npos || colon < space ||
      !read_number(error.substr(0, space), 0U, kSlots - 1, moved.slot) ||
      !read_number(error.substr(colon + 1), 1, static_cast<int>(kMostPort), moved.server.port)) {
    return std::nullopt;
  }
  const std::string_view host = error.substr(space + 1, colon - space - 1);
  if (!host.empty() && !is_host(host)) {
    return std::nullopt;
  }
  moved.server.host = host.empty() ? asked.host : std::string(host);
  return moved;
}

}  // namespace penstock::redis
