// Query: a URL's query as name=value pairs (application/x-www-form-urlencoded,
// https://url.spec.whatwg.org/#application/x-www-form-urlencoded).
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "shared/base/result.h"

namespace penstock::http {

// RFC 3986, section 2.1. Nothing: a '%' without two hexadecimal digits behind it.
std::optional<std::string> decode_percent(std::string_view text);

class Query {
 public:
  static constexpr size_t kMaxBytes = 4096;
  static constexpr size_t kMaxPairs = 32;

  // Errors: too long, too many, a '%' without two hexadecimal digits, a name that comes twice.
  static Result<Query> parse(std::string_view text, size_t most = kMaxBytes);

  // Nothing: no such name. Valid while this lives.
  std::optional<std::string_view> get(std::string_view name) const noexcept;

 private:
  std::vector<std::pair<std::string, std::string>> pairs_;
};

}  // namespace penstock::http
