#include "shared/base/job_id.h"

#include <sys/random.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace penstock {
namespace {

constexpr char kCrockford[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

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
  JobId id;
  std::memcpy(id.text, "job_", 4);
  char* out = id.text + 4;
  for (int shift = 45; shift >= 0; shift -= 5) {
    *out++ = kCrockford[static_cast<uint64_t>(unix_ms) >> shift & 31];
  }
  const uint8_t* bytes = random();
  for (int half = 0; half < 2; ++half, bytes += 5) {
    uint64_t bits = 0;
    for (int i = 0; i < 5; ++i) {
      bits = bits << 8 | bytes[i];
    }
    for (int shift = 35; shift >= 0; shift -= 5) {
      *out++ = kCrockford[bits >> shift & 31];
    }
  }
  return id;
}

}  // namespace penstock
