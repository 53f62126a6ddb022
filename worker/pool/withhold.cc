#include "worker/pool/withhold.h"

#include <algorithm>
#include <bitset>
#include <cstdint>
#include <unordered_map>

#include "shared/base/utf8.h"

namespace penstock {
namespace {

constexpr std::string_view kWithheld = "[withheld]";

int digit(char c) {
  return c >= '0' && c <= '9'   ? c - '0'
         : c >= 'a' && c <= 'f' ? c - 'a' + 10
         : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                : -1;
}

// The number of `digits` hexadecimal digits at the front; -1: there are none.
int32_t hex_number(std::string_view text, size_t digits) {
  int32_t number = 0;
  for (size_t i = 0; i < digits; ++i) {
    const int next = i < text.size() ? digit(text[i]) : -1;
    if (next < 0) {
      return -1;
    }
    number = number * 16 + next;
  }
  return number;
}

void append_utf8(std::string& out, int32_t point) {
  const auto byte = [&](int32_t bits) { out += static_cast<char>(bits); };
  if (point < 0x80) {
    byte(point);
  } else if (point < 0x800) {
    byte(0xC0 | point >> 6), byte(0x80 | (point & 0x3F));
  } else if (point < 0x10000) {
    byte(0xE0 | point >> 12), byte(0x80 | (point >> 6 & 0x3F)), byte(0x80 | (point & 0x3F));
  } else {
    byte(0xF0 | point >> 18), byte(0x80 | (point >> 12 & 0x3F));
    byte(0x80 | (point >> 6 & 0x3F)), byte(0x80 | (point & 0x3F));
  }
}

// One escape, behind its backslash. Returns how many bytes it took.
size_t append_escape(std::string& out, std::string_view text) {
  constexpr size_t kUnit = 5;  // u and four digits
  switch (text.empty() ? '\\' : text.front()) {
    case 'n':
    case 'r':
    case 't':
    case 'b':
    case 'f':
      out += '\n';
      return 1;
    case 'u':
      break;
    default:
      return 0;  // what follows stands for itself
  }
  const int32_t high = hex_number(text.substr(1), 4);
  if (high < 0) {
    return 0;
  }
  const bool pair = high >= 0xD800 && high < 0xDC00 && text.substr(kUnit).starts_with("\\u");
  const int32_t low = pair ? hex_number(text.substr(kUnit + 2), 4) : -1;
  if (low >= 0xDC00 && low < 0xE000) {
    append_utf8(out, 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00));
    return 2 * kUnit + 1;
  }
  append_utf8(out, high);
  return kUnit;
}

std::string without_escapes(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    if (text[at] == '\\') {
      at += 1 + append_escape(out, text.substr(at + 1));
    } else {
      out += text[at++];
    }
  }
  return one_line(out);
}

constexpr uint64_t kBase = 0x9E3779B97F4A7C15;
constexpr uint64_t power(size_t n) { return n == 0 ? 1 : kBase * power(n - 1); }

// Sums of kWithheldBytes in a row, each made from the one before (Rabin and Karp).
class RollingSum {
 public:
  void push(char c) { sum_ = sum_ * kBase + static_cast<uint8_t>(c); }
  void drop(char c) { sum_ -= kTop * static_cast<uint8_t>(c); }
  uint64_t sum() const { return sum_; }

 private:
  static constexpr uint64_t kTop = power(kWithheldBytes);
  uint64_t sum_ = 0;
};

// Calls each(at, sum) for each run of that length.
template <typename F>
void each_run(std::string_view text, F&& each) {
  RollingSum sum;
  for (size_t i = 0; i < text.size(); ++i) {
    sum.push(text[i]);
    if (i >= kWithheldBytes) {
      sum.drop(text[i - kWithheldBytes]);
    }
    if (i + 1 >= kWithheldBytes) {
      each(i + 1 - kWithheldBytes, sum.sum());
    }
  }
}

}  // namespace

std::string withhold(std::string_view said, const std::vector<std::string_view>& secrets) {
  const std::string text =
      without_escapes(said.substr(0, utf8_complete_prefix(said.substr(0, kMostSaidBytes))));
  size_t bytes = 0;
  for (const std::string_view secret : secrets) {
    bytes += secret.size();
  }
  if (bytes > kMostSecretBytes) {
    return std::string(kWithheld);
  }
  std::unordered_map<uint64_t, bool> sums;  // of what is said: whether a secret has it, too
  std::bitset<1U << 16> seldom;             // so that most of a secret is passed over fast
  each_run(text, [&](size_t, uint64_t sum) {
    sums.emplace(sum, false);
    seldom.set(sum >> 48);
  });
  for (const std::string_view secret : secrets) {
    each_run(without_escapes(secret), [&](size_t, uint64_t sum) {
      if (!seldom[sum >> 48]) {
        return;
      }
      if (const auto found = sums.find(sum); found != sums.end()) {
        found->second = true;
      }
    });
  }
  std::vector<bool> hidden(text.size());
  each_run(text, [&](size_t at, uint64_t sum) {
    if (sums.at(sum)) {
      std::fill_n(hidden.begin() + static_cast<ptrdiff_t>(at), kWithheldBytes, true);
    }
  });
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (!hidden[i]) {
      out += text[i];
    } else if (i == 0 || !hidden[i - 1]) {
      out += kWithheld;
    }
  }
  return out;
}

}  // namespace penstock
