// JsonReader: typed reads from one JSON object, with failures in the caller's words.
//
// simdjson's On-Demand front end validates only what is looked at; whoever uses this looks at every
// value, with skip() at those it does not need, so that a body that passes is valid JSON as a whole
// (RFC 8259).
//
// Where several fields of an object have one name, the last one counts, as at the edge
// (shared/http/body_fields.h). What was refused of one is forgotten when its name comes again. So a
// reader must leave nothing of the first when it reads a field a second time. The owner undoes a
// top-level field that ends as null.
#pragma once

#include <simdjson.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "worker/pool/engine.h"

namespace penstock::openai {

using Value = simdjson::ondemand::value;
using JsonType = simdjson::ondemand::json_type;

// Where the JSON came from, in a failure's words.
struct Source {
  const char* subject;  // "The body": is not valid JSON
  const char* preface;  // before what is said of a field, or ""
};
constexpr Source kBody = {"The body", ""};
constexpr Source kOverride = {"The operator's override", "In the operator's override, "};

class JsonReader {
 public:
  // `padded` holds `size` bytes of JSON and at least SIMDJSON_PADDING bytes of room after them; it
  // and `parser` outlive this.
  JsonReader(simdjson::ondemand::parser& parser, const char* padded, size_t size, Source source);

  // Every read returns false when it failed; the first failure is kept.
  bool ok() const { return !failure_.has_value(); }
  Failure take_failure() { return std::move(*failure_); }

  // A field that is well-formed but wrong: 400, `param` is its name.
  bool refuse(std::string_view param, const std::string& message);
  // What came is not JSON: what and where.
  bool malformed(simdjson::error_code error);

  bool type_of(Value& value, JsonType& type);
  bool is_null(Value& value, bool& null);
  // False, and refused, if the value is of another type; `wanted` says it in words: "a string".
  bool expect(Value& value, std::string_view param, JsonType type, const char* wanted);
  // `param` names the field in the failure when the type is another.
  bool string(Value& value, std::string_view param, std::string& out);
  bool boolean(Value& value, std::string_view param, bool& out);
  // An integer of int64 or uint64; the latter's bits are kept.
  bool integer(Value& value, std::string_view param, uint64_t& bits, bool& negative);
  // An integer within bounds.
  bool whole(Value& value, std::string_view param, int64_t least, int64_t most, int64_t& out);
  bool number(Value& value, std::string_view param, double least, double most, double& out);
  // Any value, only checked. `is_empty`: false, 0, "", [] or {}.
  bool skip(Value& value, int depth, bool* is_empty = nullptr);

  // Calls on_field(name, value) for each field of the top-level object. May be called again: it
  // begins anew.
  template <typename F>
  bool each_top_field(F&& on_field);
  template <typename F>
  bool each_field(Value& value, F&& on_field);
  // Calls on_element(index, value).
  template <typename F>
  bool each_element(Value& value, F&& on_element);

  // "a string", "an array" ...
  static const char* name_of(JsonType type);

 private:
  // Fields of one object that were refused, with why: each until its name comes again.
  class Refused {
   public:
    static constexpr size_t kMost = 64;  // also of those forgotten: each was some work
    // The name comes again. True if what was refused is thereby forgotten.
    bool forget(std::string_view name);
    void add(std::string_view name, Failure failure);
    bool full() const { return added_ == kMost; }
    bool empty() const { return fields_.empty(); }
    Failure first() && { return std::move(fields_.front().second); }

   private:
    std::vector<std::pair<std::string, Failure>> fields_;
    size_t added_ = 0;
  };

  template <typename Object, typename F>
  bool walk_fields(Object& object, F& on_field);
  bool check_whole();
  bool skip_scalar(Value& value, JsonType type, bool& empty);
  bool number_token(Value& value, std::string_view param, std::string_view& token);
  size_t offset_of(simdjson::error_code error);
  bool fail(std::string_view param, std::string message);
  bool top_level(simdjson::ondemand::object& object);
  bool at_end();

  const char* const bytes_;
  const size_t size_;
  const Source source_;
  simdjson::ondemand::document document_;
  std::optional<size_t> at_;  // offset of the value being read, where known
  std::optional<Failure> failure_;
  bool malformed_ = false;  // the failure is of the JSON, not of a field
  bool forgot_ = false;     // a refused value, part of which nobody has looked at
  bool gave_up_ = false;    // after too many that were refused
};

template <typename Object, typename F>
bool JsonReader::walk_fields(Object& object, F& on_field) {
  Refused refused;
  for (auto result : object) {
    if (auto error = result.error(); error) {
      return malformed(error);
    }
    simdjson::ondemand::field field = result.value_unsafe();
    std::string_view name;
    if (auto error = field.unescaped_key().get(name); error) {
      return malformed(error);
    }
    forgot_ = refused.forget(name) || forgot_;
    if (!on_field(name, field.value())) {
      if (malformed_) {
        return false;
      }
      refused.add(name, *std::exchange(failure_, std::nullopt));
      gave_up_ = gave_up_ || refused.full();
      if (refused.full()) {
        break;
      }
    }
    at_.reset();
  }
  if (!refused.empty()) {
    failure_ = std::move(refused).first();
  }
  return ok();
}

template <typename F>
bool JsonReader::each_top_field(F&& on_field) {
  simdjson::ondemand::object object;
  if (!top_level(object) || (!walk_fields(object, on_field) && (malformed_ || gave_up_))) {
    return false;
  }
  std::optional<Failure> refused = std::exchange(failure_, std::nullopt);
  if (!at_end() || (forgot_ && !check_whole())) {
    return false;  // what is not JSON is told before what is wrong with it
  }
  failure_ = std::move(refused);
  return ok();
}

template <typename F>
bool JsonReader::each_field(Value& value, F&& on_field) {
  simdjson::ondemand::object object;
  if (auto error = value.get_object().get(object); error) {
    return malformed(error);
  }
  return walk_fields(object, on_field);
}

template <typename F>
bool JsonReader::each_element(Value& value, F&& on_element) {
  simdjson::ondemand::array array;
  if (auto error = value.get_array().get(array); error) {
    return malformed(error);
  }
  size_t index = 0;
  for (auto result : array) {
    if (auto error = result.error(); error) {
      return malformed(error);
    }
    Value element = result.value_unsafe();
    if (!on_element(index++, element)) {
      return false;
    }
    at_.reset();
  }
  return true;
}

}  // namespace penstock::openai
