// Reads the keys of one JSON object of a model folder, each with its type and range, and remembers
// the first thing that was wrong. Absent and null are the same.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "worker/engines/llama/json_file.h"

namespace penstock::llama {

class Keys {
 public:
  // `name` is the file's, for messages. REQUIRES: the parser of `object` outlives this.
  Keys(simdjson::dom::element object, std::string name) : object_(object), name_(std::move(name)) {}

  // The value; none if the key is absent or null.
  std::optional<simdjson::dom::element> find(std::string_view key) const;

  // What is outside its range, or of another type, fails; so does what is absent where nothing is
  // given for that.
  int64_t integer(std::string_view key, int64_t low, int64_t high,
                  std::optional<int64_t> absent = {});
  double number(std::string_view key, double low, double high, std::optional<double> absent = {});
  bool boolean(std::string_view key, bool absent);
  std::string text(std::string_view key, std::string_view absent);
  // One token id or a list of them, each from 0 to `last`.
  std::vector<int32_t> ids(std::string_view key, int64_t last);

  void fail(std::string_view key, const std::string& what);

  // "<name>: <key> ...", or empty.
  const std::string& error() const { return error_; }
  const std::string& name() const { return name_; }

 private:
  simdjson::dom::element object_;
  std::string name_;
  std::string error_;
};

}  // namespace penstock::llama
