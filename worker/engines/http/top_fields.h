// TopFields: finds the fields of a JSON object's top level, while it comes, without holding it.
//
// Two things need it. A request is edited: some values are replaced, and all other bytes stay. For
// that it says where each field begins and ends. An answer may be megabytes of pictures, with the
// usage behind them. For that it keeps the values that are small.
//
// The JSON is not judged: in a malformed one it finds what is there before the fault. Each byte is
// looked at once, and memory is bounded. Format: RFC 8259.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::http_engine {

// A field; offsets are of the whole JSON.
struct TopField {
  std::string name;  // as written, its escapes too
  size_t begin = 0;  // of the name's quote
  size_t value = 0;  // of the value
  size_t end = 0;    // behind the value
  std::string text;  // the value as it was written; empty if it is longer than kMaxValueBytes
};

class TopFields {
 public:
  static constexpr size_t kMaxFields = 256;
  static constexpr size_t kMaxNameBytes = 128;
  static constexpr size_t kMaxValueBytes = 4096;

  // True once the object is closed, or this is none, or it has too many fields.
  bool feed(std::string_view piece);

  const std::vector<TopField>& fields() const { return fields_; }
  // The last of that name; nullptr: there is none.
  const TopField* find(std::string_view name) const;
  // Offset of the bracket that closes the object; 0: it was not seen.
  size_t closed_at() const { return closed_at_; }

 private:
  enum class State : uint8_t { kStart, kBetween, kName, kValue, kEnd };

  size_t in_string(std::string_view piece);
  void keep(std::string_view bytes);
  void take(char c);
  void begin_value();
  void in_value(char c);
  void end_value(char c);
  void close();

  State state_ = State::kStart;
  size_t at_ = 0;     // bytes before the next one
  TopField field_;    // that is being read
  size_t end_ = 0;    // behind the last byte of its value
  size_t depth_ = 0;  // of brackets in its value
  bool begun_ = false;
  bool too_long_ = false;  // its name or value, to be kept
  bool in_string_ = false;
  bool escaped_ = false;  // the next byte of the string is
  std::vector<TopField> fields_;
  size_t closed_at_ = 0;
};

}  // namespace penstock::http_engine
