#include "shared/base/job_id.h"

#include <sys/random.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace penstock {
namespace {

constexpr std::string_view kCrockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
constexpr std::string_view kPrefix = "job_";
constexpr size_t kTimeCharacters = 10;
constexpr size_t kCountCharacters = 3;

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
  JobId id;
  std::memcpy(id.text, kPrefix.data(), kPrefix.size());
  char* out = id.text + kPrefix.size();
  const uint64_t sequence = static_cast<uint64_t>(last_ms_) << 15 | count_;
  for (int shift = 60; shift >= 0; shift -= 5) {
    *out++ = kCrockford[sequence >> shift & 31];
  }
  const uint8_t* bytes = random();
  while (out != id.text + JobId::kBytes) {
    const size_t i = static_cast<size_t>(out - id.text) - kPrefix.size() - kTimeCharacters -
                     kCountCharacters;  // five bits each, from sixteen
    const size_t bit = i * 5;
    const uint32_t pair = static_cast<uint32_t>(bytes[bit / 8]) << 8 | bytes[bit / 8 + 1];
    *out++ = kCrockford[pair >> (11 - bit % 8) & 31];
  }
  return id;
}

void JobIdMaker::start_after(const JobId& id) noexcept {
  const uint64_t sequence = sequence_of(id);
  if (static_cast<int64_t>(sequence >> 15) >= last_ms_) {
    last_ms_ = static_cast<int64_t>(sequence >> 15);
    count_ = sequence & (kPerMs - 1);
  }
}

uint64_t sequence_of(const JobId& id) noexcept {
  uint64_t sequence = 0;
  for (const char c : id.view().substr(kPrefix.size(), kTimeCharacters + kCountCharacters)) {
    sequence = sequence << 5 | (kCrockford.find(c) & 31);
  }
  return sequence;
}

int64_t created_ms(const JobId& id) noexcept { return static_cast<int64_t>(sequence_of(id) >> 15); }

std::optional<JobId> parse_job_id(std::string_view text) noexcept {
  if (text.size() != JobId::kBytes || !text.starts_with(kPrefix) ||
      text.find_first_not_of(kCrockford, kPrefix.size()) != std::string_view::npos ||
      text[kPrefix.size()] > '7') {  // of the first character's five bits a time has three
    return std::nullopt;
  }
  JobId id;
  std::memcpy(id.text, text.data(), text.size());
  return id;
}

}  // namespace penstock
