#include "shared/challenge/challenge.h"

#include <algorithm>
#include <charconv>

namespace penstock::challenge {
namespace {

struct Level {
  uint64_t numbers;      // version 1: N
  uint64_t counters;     // version 2: N, at a cost of 1000
  uint32_t prefix_cost;  // version 2 with a prefix only: the same work on average
  size_t prefix_digits;
};
constexpr Level kOfLevel[kLevels] = {{25'000, 500, 61, 3},
                                     {50'000, 2000, 244, 3},
                                     {100'000, 8000, 61, 4},
                                     {200'000, 20'000, 152, 4}};
constexpr uint32_t kCost = 1000;

char* put(std::string_view text, char* at) noexcept {
  return std::copy(text.begin(), text.end(), at);
}

char* put(int64_t number, char* at) noexcept { return std::to_chars(at, at + 20, number).ptr; }

// Below `end`; of 64 random bits, so each is as likely to within 2^-46.
uint64_t below(uint64_t end, const uint8_t* random) noexcept {
  uint64_t bits = 0;
  for (int i = 0; i < 8; ++i) {
    bits = bits << 8 | random[i];
  }
  return bits % end;
}

char* put_signed(const Keys& keys, std::string_view text, char* at) noexcept {
  const std::string_view key(keys.signature_key.data(), keys.signature_key.size());
  return put("\"}", write_hex(hmac(key, text), put(",\"signature\":\"", at)));
}

ChallengeText write_version_1(const Keys& keys, const Level& level, const Holder& holder,
                              const Random& random, int64_t now_s) noexcept {
  Salt salt{.expires_s = now_s + kLifeSeconds, .holder = holder};
  std::copy_n(random.begin() + 8, salt.random.size(), salt.random.begin());
  char salt_text[kMostSaltText];
  const std::string_view s(salt_text, static_cast<size_t>(write_salt(salt, salt_text) - salt_text));
  char digits[64];
  write_hex(number_digest(s, below(level.numbers, random.data())), digits);
  const std::string_view h(digits, sizeof digits);

  ChallengeText text;
  char* at = put("{\"algorithm\":\"SHA-256\",\"challenge\":\"", text.bytes.data());
  at = put("\",\"maxnumber\":", put(h, at));
  at = put(",\"salt\":\"", put(static_cast<int64_t>(level.numbers), at));
  at = put_signed(keys, h, put("\"", put(s, at)));
  text.size = static_cast<size_t>(at - text.bytes.data());
  return text;
}

Parameters make_parameters(const Keys& keys, Format format, const Level& level,
                           const Random& random) noexcept {
  Parameters parameters;
  std::copy_n(random.begin() + 8, parameters.nonce.size(), parameters.nonce.begin());
  std::copy_n(random.begin() + 24, parameters.salt.size(), parameters.salt.begin());
  if (format == Format::kPbkdf2Prefix) {
    parameters.cost = level.prefix_cost;
    parameters.prefix_size = level.prefix_digits;
    char digits[4];
    write_hex({random.data(), 2}, digits);
    std::copy_n(digits, level.prefix_digits, parameters.prefix.begin());
    return parameters;
  }
  parameters.cost = kCost;
  const Digest key =
      derive_key(parameters, static_cast<uint32_t>(below(level.counters, random.data())));
  write_hex(std::span(key).first(16), parameters.prefix.data());
  parameters.prefix_size = 32;
  parameters.has_key_signature = true;
  parameters.key_signature = hmac({keys.number_key.data(), keys.number_key.size()}, text_of(key));
  return parameters;
}

ChallengeText write_version_2(const Keys& keys, Parameters parameters, const Holder& holder,
                              int64_t now_s) noexcept {
  parameters.expires_s = now_s + kLifeSeconds;
  parameters.holder = holder;
  ChallengeText text;
  char* const begin = put("{\"parameters\":", text.bytes.data());
  char* const end = write_parameters(parameters, begin);
  const char* const last = put_signed(keys, {begin, static_cast<size_t>(end - begin)}, end);
  text.size = static_cast<size_t>(last - text.bytes.data());
  return text;
}

}  // namespace

ChallengeText write_challenge(const Keys& keys, Format format, int level, const Holder& holder,
                              const Random& random, int64_t now_s) noexcept {
  const Level& of_level = kOfLevel[level - 1];
  return format == Format::kSha256
             ? write_version_1(keys, of_level, holder, random, now_s)
             : write_version_2(keys, make_parameters(keys, format, of_level, random), holder,
                               now_s);
}

char* write_salt(const Salt& salt, char* out) noexcept {
  char* at = put("?expires=", write_hex(salt.random, out));
  at = put("&l=", put(salt.expires_s, at));
  at = put("&s=", write_hex(salt.holder.limit, at));
  return put("&", write_hex(salt.holder.subject, at));
}

char* write_parameters(const Parameters& parameters, char* out) noexcept {
  char* at = put("{\"algorithm\":\"PBKDF2/SHA-256\",\"cost\":", out);
  at = put(",\"data\":{\"l\":\"", put(int64_t{parameters.cost}, at));
  at = put("\",\"s\":\"", write_hex(parameters.holder.limit, at));
  at = put("\"},\"expiresAt\":", write_hex(parameters.holder.subject, at));
  at = put(",\"keyLength\":32,\"keyPrefix\":\"", put(parameters.expires_s, at));
  at = put("\"", put(parameters.prefix_text(), at));
  if (parameters.has_key_signature) {
    at = put("\"", write_hex(parameters.key_signature, put(",\"keySignature\":\"", at)));
  }
  at = put("\",\"salt\":\"", write_hex(parameters.nonce, put(",\"nonce\":\"", at)));
  return put("\"}", write_hex(parameters.salt, at));
}

Digest number_digest(std::string_view salt, uint64_t number) noexcept {
  char text[kMostSaltText + 20];
  const char* const end = put(static_cast<int64_t>(number), put(salt, text));
  return sha256({text, static_cast<size_t>(end - text)});
}

Digest derive_key(const Parameters& parameters, uint32_t counter) noexcept {
  std::array<uint8_t, 20> password;
  uint8_t* at = std::copy(parameters.nonce.begin(), parameters.nonce.end(), password.begin());
  for (int shift = 24; shift >= 0; shift -= 8) {
    *at++ = static_cast<uint8_t>(counter >> shift);
  }
  return pbkdf2(text_of(password), text_of(parameters.salt), parameters.cost);
}

}  // namespace penstock::challenge
