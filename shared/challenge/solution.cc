#include "shared/challenge/solution.h"

#include <algorithm>
#include <charconv>
#include <initializer_list>

#include "shared/base/base64.h"

namespace penstock::challenge {
namespace {

// One object of JSON after another, strictly.
class Reader {
 public:
  explicit Reader(std::string_view text) noexcept : rest_(text) {}

  bool at_end() noexcept {
    skip_space();
    return rest_.empty();
  }
  bool begins_object() noexcept {
    skip_space();
    return rest_.starts_with('{');
  }

  // An object of these members, in any order, each once at most; `needed` is a bit for each that
  // has to be there. read(i) reads the value of names[i].
  template <class Read>
  bool object(std::initializer_list<std::string_view> names, unsigned needed,
              const Read& read) noexcept {
    unsigned seen = 0;
    if (!take('{')) {
      return false;
    }
    do {
      std::string_view name;
      if (!string(name) || !take(':')) {
        return false;
      }
      const auto* const found = std::find(names.begin(), names.end(), name);
      const auto index = static_cast<size_t>(found - names.begin());
      if (found == names.end() || (seen >> index & 1) != 0 || !read(index)) {
        return false;
      }
      seen |= 1u << index;
    } while (take(','));
    return take('}') && (seen & needed) == needed;
  }

  // Without escapes: none is needed for what we have signed.
  bool string(std::string_view& value) noexcept {
    if (!take('"')) {
      return false;
    }
    const size_t end = rest_.find('"');
    value = rest_.substr(0, end);
    rest_.remove_prefix(std::min(end, rest_.size() - 1) + 1);
    return end != std::string_view::npos && std::all_of(value.begin(), value.end(), [](char c) {
             return c >= ' ' && c <= '~' && c != '\\';
           });
  }
  bool is(std::string_view expected) noexcept {
    std::string_view value;
    return string(value) && value == expected;
  }
  template <size_t N>
  bool hex(std::array<uint8_t, N>& bytes) noexcept {
    std::string_view digits;
    return string(digits) && read_hex(digits, bytes);
  }
  template <class Number>
  bool whole(Number& number) noexcept {
    skip_space();
    return take_whole(rest_, number);
  }
  // How long it took, of which nothing is made.
  bool time() noexcept {
    skip_space();
    const size_t end = std::min(rest_.find_first_not_of("0123456789.eE+-"), rest_.size());
    rest_.remove_prefix(end);
    return end > 0;
  }

  template <class Number>
  static bool take_whole(std::string_view& text, Number& number) noexcept {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    const auto digits = static_cast<size_t>(end - text.data());
    if (error != std::errc() || number < 0 || text[0] == '-' || (digits > 1 && text[0] == '0')) {
      return false;
    }
    text.remove_prefix(digits);
    return true;
  }

 private:
  void skip_space() noexcept {
    rest_.remove_prefix(std::min(rest_.find_first_not_of(" \t\r\n"), rest_.size()));
  }
  bool take(char c) noexcept {
    skip_space();
    if (!rest_.starts_with(c)) {
      return false;
    }
    rest_.remove_prefix(1);
    return true;
  }

  std::string_view rest_;
};

bool take(std::string_view& text, std::string_view expected) noexcept {
  if (!text.starts_with(expected)) {
    return false;
  }
  text.remove_prefix(expected.size());
  return true;
}

template <size_t N>
bool take_hex(std::string_view& text, std::array<uint8_t, N>& bytes) noexcept {
  const std::string_view digits = text.substr(0, 2 * N);
  text.remove_prefix(digits.size());
  return read_hex(digits, bytes);
}

bool read_salt(std::string_view text, Salt& salt) noexcept {
  return take_hex(text, salt.random) && take(text, "?expires=") &&
         Reader::take_whole(text, salt.expires_s) && take(text, "&l=") &&
         take_hex(text, salt.holder.limit) && take(text, "&s=") &&
         take_hex(text, salt.holder.subject) && text == "&";
}

bool is_prefix(std::string_view digits) noexcept {
  return !digits.empty() && digits.size() <= 32 &&
         digits.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

bool read_parameters(Reader& in, Parameters& p) noexcept {
  constexpr unsigned kNeeded = 0b1'1011'1111;  // all but keySignature
  return in.object({"algorithm", "cost", "data", "expiresAt", "keyLength", "keyPrefix",
                    "keySignature", "nonce", "salt"},
                   kNeeded, [&](size_t member) noexcept {
                     std::string_view prefix;
                     uint32_t length = 0;
                     switch (member) {
                       case 0:
                         return in.is(kPbkdf2Name);
                       case 1:
                         return in.whole(p.cost);
                       case 2:
                         return in.object({"l", "s"}, 0b11, [&](size_t field) noexcept {
                           return field == 0 ? in.hex(p.holder.limit) : in.hex(p.holder.subject);
                         });
                       case 3:
                         return in.whole(p.expires_s);
                       case 4:
                         return in.whole(length) && length == 32;
                       case 5:
                         p.prefix_size = in.string(prefix) && is_prefix(prefix) ? prefix.size() : 0;
                         std::copy_n(prefix.begin(), p.prefix_size, p.prefix.begin());
                         return p.prefix_size > 0;
                       case 6:
                         p.has_key_signature = true;
                         return in.hex(p.key_signature);
                       case 7:
                         return in.hex(p.nonce);
                       default:
                         return in.hex(p.salt);
                     }
                   });
}

bool read_version_2(Reader& in, Solution& solution) noexcept {
  return in.object({"parameters", "signature"}, 0b11, [&](size_t member) noexcept {
    return member == 0 ? read_parameters(in, solution.parameters) : in.hex(solution.signature);
  });
}

bool read_counter(Reader& in, Solution& solution) noexcept {
  return in.object({"counter", "derivedKey", "time"}, 0b011, [&](size_t member) noexcept {
    return member == 0   ? in.whole(solution.counter)
           : member == 1 ? in.hex(solution.key)
                         : in.time();
  });
}

bool read_json(std::string_view json, Solution& solution) noexcept {
  Reader in(json);
  unsigned seen = 0;
  constexpr unsigned kVersion1 = 0b001'1111;
  constexpr unsigned kVersion2 = 0b100'0010;
  const bool whole =
      in.object({"algorithm", "challenge", "number", "salt", "signature", "took", "solution"}, 0,
                [&](size_t member) noexcept {
                  seen |= 1u << member;
                  std::string_view salt;
                  switch (member) {
                    case 0:
                      return in.is(kSha256Name);
                    case 1:
                      if (in.begins_object()) {
                        solution.format = Format::kPbkdf2;
                        return read_version_2(in, solution);
                      }
                      return in.hex(solution.digest);
                    case 2:
                      return in.whole(solution.number);
                    case 3:
                      return in.string(salt) && read_salt(salt, solution.salt);
                    case 4:
                      return in.hex(solution.signature);
                    case 5:
                      return in.time();
                    default:
                      return read_counter(in, solution);
                  }
                });
  constexpr unsigned kTook = 0b010'0000;
  return whole && in.at_end() &&
         (solution.format == Format::kSha256 ? (seen & ~kTook) == kVersion1 : seen == kVersion2);
}

bool is_signed(const Keys& keys, const Solution& solution) noexcept {
  char text[kMostParametersText];
  const char* const end = solution.format == Format::kSha256
                              ? write_hex(solution.digest, text)
                              : write_parameters(solution.parameters, text);
  const std::string_view key(keys.signature_key.data(), keys.signature_key.size());
  return same(hmac(key, {text, static_cast<size_t>(end - text)}), solution.signature);
}

}  // namespace

std::optional<Solution> read_solution(std::string_view payload) noexcept {
  char json[kMostPayloadBytes];
  if (payload.size() > kMostPayloadBytes) {
    return std::nullopt;
  }
  const char* const end = decode_base64(payload, json);
  Solution solution;
  return end != nullptr && read_json({json, static_cast<size_t>(end - json)}, solution)
             ? std::optional(solution)
             : std::nullopt;
}

bool is_ours(const Keys& keys, const Solution& solution, const Holder& holder,
             int64_t now_s) noexcept {
  const int64_t left_s = solution.expires_s() - now_s;
  return solution.holder() == holder && left_s >= 0 && left_s <= kLifeSeconds + kClockSkewSeconds &&
         is_signed(keys, solution);
}

bool is_solved(const Keys& keys, const Solution& solution) noexcept {
  if (solution.format == Format::kSha256) {
    // What was signed is the digest: that these are its salt and number shows here.
    char salt[kMostSaltText];
    const char* const end = write_salt(solution.salt, salt);
    return same(number_digest({salt, static_cast<size_t>(end - salt)}, solution.number),
                solution.digest);
  }
  if (solution.parameters.has_key_signature) {
    return same(hmac({keys.number_key.data(), keys.number_key.size()}, text_of(solution.key)),
                solution.parameters.key_signature);
  }
  char digits[64];
  const Digest key = derive_key(solution.parameters, solution.counter);
  write_hex(key, digits);
  return std::string_view(digits, sizeof digits).starts_with(solution.parameters.prefix_text());
}

Pass pass_for(const Solution& solution, int64_t seconds) noexcept {
  Pass pass{.holder = solution.holder(),
            .issued_s = solution.expires_s() - kLifeSeconds,
            .seconds = seconds};
  std::copy_n(solution.id().begin(), pass.id.size(), pass.id.begin());
  return pass;
}

}  // namespace penstock::challenge
