// What a server that may be anything answers where Redis, a Sentinel or a node of a cluster is
// asked: where keys are, what a script says, and errors.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "shared/redis/answer.h"
#include "shared/redis/places.h"

namespace {

using namespace penstock::redis;

void check(bool holds) {
  if (!holds) {
    std::abort();
  }
}

void check(const Address& address) {
  check(address.path.empty() && !address.host.empty());
  check(address.port > 0 && address.port <= 65535);
  check(text_of(address).find('\n') == std::string::npos);
}

void check(const Places& places) {
  check(!places.ranges.empty());
  for (const Places::Range& range : places.ranges) {
    check(range.first <= range.last && range.last < kSlots);
    check(range.server < places.servers.size());
  }
  for (const Address& server : places.servers) {
    check(server);
  }
}

void read(const redisReply& answer) {
  const Address asked{"", "10.0.0.1", 7000};
  if (const auto places = read_master(answer)) {
    check(*places);
  }
  if (const auto places = read_slots(answer, asked)) {
    check(*places);
  }
  for (const size_t count : {5, 6}) {
    for (size_t i = 0; i < count && is_numbers(answer, count); ++i) {
      check(number_of(answer, i) <= uint64_t{1} << 53);
    }
  }
  if (is_error(answer)) {
    if (const auto moved = read_moved(text_of(answer), asked)) {
      check(moved->server);
      check(moved->slot < kSlots);
    }
  }
}

// An array of so many that hiredis takes gigabytes for it.
bool is_huge(std::string_view bytes) {
  constexpr size_t kMostDigits = 5;
  for (size_t at = bytes.find('*'); at != std::string_view::npos; at = bytes.find('*', at + 1)) {
    const size_t end = bytes.find_first_not_of("+0123456789", at + 1);
    if (end - at > kMostDigits) {
      return true;
    }
  }
  return false;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  check(slot_of(bytes) < kSlots);
  if (is_huge(bytes)) {
    return 0;
  }
  redisReader* reader = redisReaderCreate();
  redisReaderFeed(reader, bytes.data(), bytes.size());
  void* answer = nullptr;
  while (redisReaderGetReply(reader, &answer) == REDIS_OK && answer != nullptr) {
    read(*static_cast<redisReply*>(answer));
    freeReplyObject(answer);
  }
  redisReaderFree(reader);
  return 0;
}
