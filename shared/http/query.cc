#include "shared/http/query.h"

#include <algorithm>

#include "shared/base/hex.h"

namespace penstock::http {
namespace {

// A form's '+' is a space.
std::optional<std::string> decoded(std::string_view text) {
  std::string spaced(text);
  std::replace(spaced.begin(), spaced.end(), '+', ' ');
  return decode_percent(spaced);
}

}  // namespace

std::optional<std::string> decode_percent(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out.push_back(text[i]);
      continue;
    }
    const int high = i + 2 < text.size() ? hex_digit(text[i + 1]) : -1;
    const int low = i + 2 < text.size() ? hex_digit(text[i + 2]) : -1;
    if (high < 0 || low < 0) {
      return std::nullopt;
    }
    out.push_back(static_cast<char>(high << 4 | low));
    i += 2;
  }
  return out;
}

Result<Query> Query::parse(std::string_view text, size_t most) {
  if (text.size() > most) {
    return Error{"The query has " + std::to_string(text.size()) + " bytes; at most " +
                 std::to_string(most) + " are read."};
  }
  Query query;
  while (!text.empty()) {
    const size_t end = std::min(text.find('&'), text.size());
    const std::string_view pair = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (pair.empty()) {
      continue;
    }
    const size_t equals = std::min(pair.find('='), pair.size());
    auto name = decoded(pair.substr(0, equals));
    auto value = decoded(pair.substr(std::min(equals + 1, pair.size())));
    if (!name || !value) {
      return Error{"The query has a '%' without two hexadecimal digits behind it."};
    }
    if (query.get(*name)) {
      return Error{"The query names '" + name->substr(0, 40) + "' twice."};
    }
    if (query.pairs_.size() == kMaxPairs) {
      return Error{"The query has more than " + std::to_string(kMaxPairs) + " names."};
    }
    query.pairs_.emplace_back(*std::move(name), *std::move(value));
  }
  return query;
}

std::optional<std::string_view> Query::get(std::string_view name) const noexcept {
  for (const auto& [each, value] : pairs_) {
    if (each == name) {
      return value;
    }
  }
  return std::nullopt;
}

}  // namespace penstock::http
