#include "shared/challenge/pass.h"

#include <algorithm>
#include <charconv>

namespace penstock::challenge {
namespace {

constexpr std::string_view kVersions[] = {"p1.", "t1.", "a1."};
constexpr size_t kVersionText = 3;
constexpr int64_t kEpochSeconds = 7 * 86400;
constexpr size_t kSaidBytes = 28;
constexpr size_t kSaidText = 38;  // the same in base64url
constexpr size_t kMacBytes = 16;
constexpr size_t kMacText = 22;

constexpr std::string_view kAlphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

char* write_base64url(std::span<const uint8_t> bytes, char* out) noexcept {
  uint32_t bits = 0;
  int held = 0;
  for (const uint8_t byte : bytes) {
    bits = bits << 8 | byte;
    for (held += 8; held >= 6; held -= 6) {
      *out++ = kAlphabet[bits >> (held - 6) & 63];
    }
  }
  if (held > 0) {
    *out++ = kAlphabet[bits << (6 - held) & 63];
  }
  return out;
}

void read_base64url(std::string_view text, std::span<uint8_t> out) noexcept {
  uint32_t bits = 0;
  int held = 0;
  size_t at = 0;
  for (const char c : text) {
    bits = bits << 6 | static_cast<uint32_t>(kAlphabet.find(c) & 63);
    held += 6;
    if (held >= 8 && at < out.size()) {
      held -= 8;
      out[at++] = static_cast<uint8_t>(bits >> held);
    }
  }
}

uint8_t* put(std::span<const uint8_t> bytes, uint8_t* at) noexcept {
  return std::copy(bytes.begin(), bytes.end(), at);
}

uint8_t* put(int64_t number, uint8_t* at) noexcept {
  for (int shift = 24; shift >= 0; shift -= 8) {
    *at++ = static_cast<uint8_t>(number >> shift);
  }
  return at;
}

int64_t number_at(const uint8_t* at) noexcept {
  return int64_t{at[0]} << 24 | int64_t{at[1]} << 16 | int64_t{at[2]} << 8 | int64_t{at[3]};
}

// Writes the mac of `said`, all of a pass before its last point.
char* write_mac(const Keys& keys, std::string_view epoch, std::string_view said,
                char* out) noexcept {
  char text[16 + kVersionText + 20 + kSaidText];
  char* end = std::copy(epoch.begin(), epoch.end(), std::copy_n("pass", 4, text));
  const Digest key = hmac(text_of(keys.master), {text, static_cast<size_t>(end - text)});
  constexpr std::string_view kDomain{"penstock-pass\0", 14};
  end = std::copy(said.begin(), said.end(), std::copy(kDomain.begin(), kDomain.end(), text));
  const Digest mac = hmac(text_of(key), {text, static_cast<size_t>(end - text)});
  return write_base64url(std::span(mac).first(kMacBytes), out);
}

}  // namespace

PassText write_pass(const Keys& keys, const Pass& pass, Kind kind) noexcept {
  const std::string_view version = kVersions[static_cast<size_t>(kind)];
  uint8_t said[kSaidBytes];
  put(pass.seconds,
      put(pass.issued_s, put(pass.id, put(pass.holder.subject, put(pass.holder.limit, said)))));
  PassText text;
  char* const begin = text.bytes.data();
  char* at = std::copy(version.begin(), version.end(), begin);
  char* const epoch = at;
  at = std::to_chars(at, at + 20, pass.issued_s / kEpochSeconds).ptr;
  const std::string_view of_epoch(epoch, static_cast<size_t>(at - epoch));
  *at++ = '.';
  at = write_base64url(said, at);
  const std::string_view before(begin, static_cast<size_t>(at - begin));
  *at++ = '.';
  at = write_mac(keys, of_epoch, before, at);
  text.size = static_cast<size_t>(at - begin);
  return text;
}

std::optional<Pass> read_pass(const Keys& keys, std::string_view text, int64_t now_s,
                              Kind kind) noexcept {
  constexpr size_t kTail = 1 + kSaidText + 1 + kMacText;
  constexpr size_t kLongestEpoch = 8;
  if (!text.starts_with(kVersions[static_cast<size_t>(kind)]) ||
      text.size() <= kVersionText + kTail || text.size() > kVersionText + kLongestEpoch + kTail) {
    return std::nullopt;
  }
  const std::string_view epoch = text.substr(kVersionText, text.size() - kVersionText - kTail);
  const std::string_view before = text.substr(0, text.size() - kMacText - 1);
  char mac[kMacText];
  write_mac(keys, epoch, before, mac);
  const auto bytes = [](const char* at) noexcept {
    return std::span(reinterpret_cast<const uint8_t*>(at), kMacText);
  };
  if (text[before.size()] != '.' ||
      !same(bytes(mac), bytes(text.data() + text.size() - kMacText))) {
    return std::nullopt;
  }
  uint8_t said[kSaidBytes];
  read_base64url(before.substr(before.size() - kSaidText), said);
  Pass pass;
  const uint8_t* at = said;
  std::copy_n(at, pass.holder.limit.size(), pass.holder.limit.begin());
  std::copy_n(at += 4, pass.holder.subject.size(), pass.holder.subject.begin());
  std::copy_n(at += 8, pass.id.size(), pass.id.begin());
  pass.issued_s = number_at(at += 8);
  pass.seconds = number_at(at + 4);
  const int64_t age_s = now_s - pass.issued_s;
  const int64_t epochs = now_s / kEpochSeconds - pass.issued_s / kEpochSeconds;
  return age_s >= -kClockSkewSeconds && age_s < pass.seconds && epochs <= 1 ? std::optional(pass)
                                                                            : std::nullopt;
}

}  // namespace penstock::challenge
