#include "shared/keys/keys_file.h"

#include <arpa/inet.h>
#include <sys/random.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <ctime>

#include "shared/base/utc.h"
#include "shared/base/utf8.h"

namespace penstock::keys {
namespace {

constexpr std::string_view kFirstLine = "penstock-keys 1";
constexpr std::string_view kEnd = "end ";
constexpr std::string_view kNone = "-";
constexpr std::string_view kPrefix = "sk-penstock-";
constexpr size_t kRandomBytes = 32;
constexpr size_t kTimeBytes = 20;

bool is_word(std::string_view text, size_t most, std::string_view also) noexcept {
  return !text.empty() && text.size() <= most &&
         std::all_of(text.begin(), text.end(), [also](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  also.find(c) != std::string_view::npos;
         });
}

bool is_ipv4(std::string_view text) {
  in_addr address;
  return text.find_first_not_of("0123456789.") == std::string_view::npos &&
         inet_pton(AF_INET, std::string(text).c_str(), &address) == 1;
}

// Takes what stands before the next space, and the space.
std::string_view take_word(std::string_view& line) noexcept {
  const size_t end = std::min(line.find(' '), line.size());
  const std::string_view word = line.substr(0, end);
  line.remove_prefix(std::min(end + 1, line.size()));
  return word;
}

Error wrong(size_t line, std::string_view what) {
  return Error{"line " + std::to_string(line) + ": " + std::string(what)};
}

Result<Key> read_key(std::string_view line, size_t number) {
  Key key;
  if (!challenge::read_hex(take_word(line), key.digest)) {
    return wrong(number, "begins with the SHA-256 of a key, 64 digits of 0-9 a-f");
  }
  key.owner = take_word(line);
  if (!is_owner(key.owner)) {
    return wrong(number, std::string("then comes whose the key is, ") + kOwnerRule);
  }
  key.tier = take_word(line);
  if (!is_tier(key.tier)) {
    return wrong(number, "then comes a plan's name, or - for none");
  }
  if (key.tier == kNone) {
    key.tier.clear();
  }
  key.made_s = parse_time(take_word(line));
  const std::string_view ends = take_word(line);
  key.ends_s = ends == kNone ? 0 : parse_time(ends);
  if (key.made_s < 0 || key.ends_s < 0) {
    return wrong(number,
                 "then come when it was issued and when it ends, such as 2026-11-30T07:00:00Z; - "
                 "for never");
  }
  key.name = line;
  if (!is_key_name(key.name)) {
    return wrong(number, "a key's name is at most 128 bytes of text on one line");
  }
  return key;
}

bool before(const Key& a, const Key& b) noexcept { return a.digest < b.digest; }

}  // namespace

bool is_owner(std::string_view text) noexcept {
  const bool like_id = text.size() == kIdBytes &&
                       text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
  return is_word(text, 128, "-_.@+") && !is_ipv4(text) && !like_id;
}

bool is_tier(std::string_view text) noexcept { return is_word(text, 64, "-_."); }

bool is_key_name(std::string_view text) noexcept {
  return text.size() <= 128 && utf8_first_invalid(text) == std::string_view::npos &&
         std::none_of(text.begin(), text.end(),
                      [](char c) { return static_cast<uint8_t>(c) < ' ' || c == 0x7F; });
}

Result<std::vector<Key>> read_keys(std::string_view text) {
  std::vector<Key> keys;
  if (text.size() > kMostFileBytes) {
    return Error{"is larger than " + std::to_string(kMostFileBytes >> 20) + " MiB"};
  }
  if (text.empty()) {
    return Error{"is empty: remove it, and \"penstockctl keys add OWNER\" makes it anew"};
  }
  bool begun = false;
  bool ended = false;
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = text.find('\n');
    if (end == std::string_view::npos || ended) {
      return wrong(number, ended ? "nothing comes after the line \"end COUNT\"" : "is cut off");
    }
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end + 1);
    if (!begun) {
      if (line != kFirstLine) {
        return wrong(number, "a file of keys begins with \"" + std::string(kFirstLine) + "\"");
      }
      begun = true;
    } else if (line.starts_with(kEnd)) {
      ended = line.substr(kEnd.size()) == std::to_string(keys.size());
      if (!ended) {
        return wrong(number, "the last line tells how many keys there are: " + std::string(kEnd) +
                                 std::to_string(keys.size()));
      }
    } else if (!line.empty() && !line.starts_with('#')) {
      Result<Key> key = read_key(line, number);
      if (!key) {
        return key.error();
      }
      keys.push_back(*std::move(key));
    }
  }
  if (!ended) {
    return Error{"is cut off: the last line, \"end COUNT\", is missing"};
  }
  if (!std::is_sorted(keys.begin(), keys.end(), before)) {
    std::sort(keys.begin(), keys.end(), before);
  }
  const auto twice = std::adjacent_find(
      keys.begin(), keys.end(), [](const Key& a, const Key& b) { return a.digest == b.digest; });
  if (twice != keys.end()) {
    return Error{"has key " + id_of(twice->digest) + " on two lines"};
  }
  return keys;
}

std::string write_keys(std::span<const Key> keys) {
  std::string text =
      std::string(kFirstLine) + "\n# Written by penstockctl keys: it shows these as a table.\n";
  for (const Key& key : keys) {
    std::array<char, 2 * sizeof key.digest> digits;
    challenge::write_hex(key.digest, digits.data());
    text.append(digits.data(), digits.size());
    for (const std::string& word :
         {key.owner, key.tier.empty() ? std::string(kNone) : key.tier, format_time(key.made_s),
          key.ends_s == 0 ? std::string(kNone) : format_time(key.ends_s)}) {
      text.append(" ").append(word);
    }
    text.append(key.name.empty() ? "" : " ").append(key.name).append("\n");
  }
  return text.append(kEnd).append(std::to_string(keys.size())).append("\n");
}

const Key* find_key(std::span<const Key> keys, std::span<const uint8_t> digest) noexcept {
  const auto compare = [&](const Key& key) noexcept {
    return std::memcmp(key.digest.data(), digest.data(), digest.size());
  };
  const auto place = std::partition_point(
      keys.begin(), keys.end(), [&](const Key& key) noexcept { return compare(key) < 0; });
  return place != keys.end() && compare(*place) == 0 ? &*place : nullptr;
}

std::string id_of(const Digest& digest) {
  std::string id(kIdBytes, '\0');
  challenge::write_hex(std::span(digest).first(kIdBytes / 2), id.data());
  return id;
}

Result<std::string> make_key() {
  std::array<uint8_t, kRandomBytes> random;
  if (getrandom(random.data(), random.size(), 0) != static_cast<ssize_t>(random.size())) {
    return Error{"the kernel gave no random bits", ErrorKind::kBusy};
  }
  std::string key(kPrefix);
  key.resize(kPrefix.size() + 2 * kRandomBytes);
  challenge::write_hex(random, key.data() + kPrefix.size());
  return key;
}

std::string format_time(int64_t unix_s) { return utc_text(unix_s); }

int64_t parse_time(std::string_view text) noexcept {
  constexpr std::string_view kShape = "0000-00-00T00:00:00Z";
  static_assert(kShape.size() == kTimeBytes);
  if (text.size() != kTimeBytes) {
    return -1;
  }
  for (size_t i = 0; i < kTimeBytes; ++i) {
    if (kShape[i] == '0' ? text[i] < '0' || text[i] > '9' : text[i] != kShape[i]) {
      return -1;
    }
  }
  const auto number = [text](size_t at, size_t digits) noexcept {
    int value = 0;
    std::from_chars(text.data() + at, text.data() + at + digits, value);
    return value;
  };
  std::tm utc{};
  utc.tm_year = number(0, 4) - 1900;
  utc.tm_mon = number(5, 2) - 1;
  utc.tm_mday = number(8, 2);
  utc.tm_hour = number(11, 2);
  utc.tm_min = number(14, 2);
  utc.tm_sec = number(17, 2);
  const std::tm asked = utc;
  const time_t seconds = timegm(&utc);  // brings 31 November to 1 December
  const bool is_day = asked.tm_mon == utc.tm_mon && asked.tm_mday == utc.tm_mday &&
                      asked.tm_hour == utc.tm_hour && asked.tm_min == utc.tm_min &&
                      asked.tm_sec == utc.tm_sec;
  return is_day && seconds >= 0 ? seconds : -1;
}

}  // namespace penstock::keys
