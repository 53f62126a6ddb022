#include "shared/base/job_id.h"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "shared/base/bytes.h"

namespace penstock {
namespace {

constexpr std::string_view kCrockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
constexpr std::string_view kPrefix = "job_";

// What each character stands for; -1: nothing.
constexpr auto kDigits = [] {
  std::array<int8_t, 256> digits;
  digits.fill(-1);
  for (size_t i = 0; i < kCrockford.size(); ++i) {
    digits[static_cast<uint8_t>(kCrockford[i])] = static_cast<int8_t>(i);
  }
  return digits;
}();

int8_t digit_of(char c) noexcept { return kDigits[static_cast<uint8_t>(c)]; }

}  // namespace

const uint8_t* JobIdMaker::random() {
  if (used_ == block_.size()) {
    ssize_t got = 0;
    do {
      got = ::getrandom(block_.data(), block_.size(), 0);
    } while (got < 0 && errno == EINTR);
    if (got != static_cast<ssize_t>(block_.size())) {
      std::abort();
    }
    used_ = 0;
  }
  const uint8_t* bytes = block_.data() + used_;
  used_ += kRandomBytes;
  return bytes;
}

JobId JobIdMaker::make(int64_t unix_ms) {
  if (unix_ms > last_ms_) {
    last_ms_ = unix_ms;
    count_ = 0;
  } else if (++count_ == kPerMs) {
    ++last_ms_;
    count_ = 0;
  }
  const uint64_t sequence = static_cast<uint64_t>(last_ms_) << 15 | count_;
  const uint8_t* const bytes = random();
  return id_of({sequence << 1 | (bytes[8] & 1), load_le<uint64_t>(bytes)});
}

void JobIdMaker::start_after(const JobId& id) noexcept {
  const uint64_t sequence = sequence_of(id);
  if (sequence > (static_cast<uint64_t>(last_ms_) << 15 | count_)) {
    last_ms_ = static_cast<int64_t>(sequence >> 15);
    count_ = sequence & (kPerMs - 1);
  }
}

Ulid ulid_of(const JobId& id) noexcept {
  Ulid ulid;
  for (const char c : id.view().substr(kPrefix.size())) {
    ulid.high = ulid.high << 5 | ulid.low >> 59;
    ulid.low = ulid.low << 5 | (digit_of(c) & 31);
  }
  return ulid;
}

JobId id_of(const Ulid& ulid) noexcept {
  JobId id;
  std::memcpy(id.text, kPrefix.data(), kPrefix.size());
  auto [high, low] = ulid;
  for (char* out = id.text + JobId::kBytes; out != id.text + kPrefix.size();) {
    *--out = kCrockford[low & 31];
    low = low >> 5 | high << 59;
    high >>= 5;
  }
  return id;
}

uint64_t sequence_of(const JobId& id) noexcept { return ulid_of(id).sequence(); }

int64_t created_ms(const JobId& id) noexcept { return static_cast<int64_t>(sequence_of(id) >> 15); }

std::optional<JobId> parse_job_id(std::string_view text) noexcept {
  if (text.size() != JobId::kBytes || !text.starts_with(kPrefix) ||
      !std::all_of(text.begin() + kPrefix.size(), text.end(),
                   [](char c) { return digit_of(c) >= 0; }) ||
      text[kPrefix.size()] > '7') {  // of the first character's five bits a time has three
    return std::nullopt;
  }
  JobId id;
  std::memcpy(id.text, text.data(), text.size());
  return id;
}

}  // namespace penstock
