// Some named fields of a JSON body, read in one pass without parsing the rest of it.
//
//   const std::string_view names[] = {"model", "steps", "size"};
//   BodyFields fields(names);
//   for (std::string_view piece : pieces) if (fields.feed(piece)) break;
//   fields[0].text                 // the model, "" when there is none
//   number_of(fields[2])           // "1024x1024" is 1048576
//
// The edge needs a few small values out of bodies that may be large and arrive in pieces: to key
// limits, to route, and to weigh what a request will cost. Of several fields of one name at the top
// level the last one counts, as it does for whoever runs the job (worker/pool/json_reader.h) and
// for most parsers there are. The body is not judged: a malformed one yields what was found before
// it went wrong, and the engine says what is wrong with it. What is found of one field does not
// depend on which others are wanted.
//
// Memory is fixed; every byte is looked at a bounded number of times, however hostile the body.
// Format: RFC 8259.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "shared/http/field_digest.h"

namespace penstock::http {

struct BodyField {
  enum class Type : uint8_t { kMissing, kString, kNumber, kBoolean, kNull, kArray, kObject };
  Type type = Type::kMissing;

  // A string: its value, escapes undone; its other bytes are as sent, UTF-8 or not. A number, true,
  // false, null: as written. Empty for arrays and objects, for what is longer than kMaxValueBytes,
  // and for a string with a broken escape or one of a surrogate (\uD800 to \uDFFF).
  std::string_view text;

  // How many the value takes in the body, its quotes or brackets included. White space in an array
  // or object is not counted, unless it is in a string.
  uint64_t bytes = 0;

  uint64_t digest = 0;  // of the value as sent: tells apart what has no text, but not for certain

  // Pictures, sounds and files in it: its members of the names that OpenAI's API has for them
  // (image_url, input_audio ...), at any depth, and how many of `bytes` they take. None of that is
  // text to a model.
  uint64_t media = 0;
  uint64_t media_bytes = 0;
};

class BodyFields {
 public:
  static constexpr size_t kMaxFields = 32;
  static constexpr size_t kMaxNameBytes = 64;
  static constexpr size_t kMaxValueBytes = 128;

  // Names beyond kMaxFields and kMaxNameBytes are never found.
  // REQUIRES: no name twice; the names, and the span of them, outlive this object.
  explicit BodyFields(std::span<const std::string_view> names) noexcept;

  // Feeds the next piece of the body. True once nothing more can change the outcome: the top-level
  // object is closed, or this is no JSON object.
  bool feed(std::string_view piece) noexcept;

  // What was found of names[i]: kMissing until the end of its last value was seen. The text is
  // valid until more is fed.
  BodyField operator[](size_t i) const noexcept;

  // The name of those looked for that the body has in letters of another case, which some parsers
  // take for it (Go's encoding/json); empty: it has none.
  std::string_view alike() const noexcept { return alike_; }

 private:
  enum class State : uint8_t {
    kStart,
    kBeforeKey,
    kKey,
    kColon,
    kBeforeValue,
    kString,  // wanted, and kept
    kScalar,  // wanted, and kept: a number, true, false, null
    kPass,    // what is not kept, up to the comma or brace that ends the value
    kEnd
  };
  enum class Text : uint8_t { kMore, kClosed, kBroken };
  struct Found {
    BodyField::Type type;
    uint8_t size;  // of its text
    uint64_t bytes;
    uint64_t digest;
    uint64_t media;
    uint64_t media_bytes;
  };
  static constexpr size_t kNone = kMaxFields;
  static constexpr size_t kMaxWordBytes = 12;  // the longest name of media has 11

  // How far it is with the next member that is a picture or a sound.
  enum class Media : uint8_t {
    kNone,
    kName,   // a string was closed that is such a name, if a colon follows
    kValue,  // the value begins with what comes next
    kInside
  };

  size_t advance(std::string_view piece, size_t i) noexcept;
  size_t key(std::string_view piece, size_t i) noexcept;
  size_t begin_value(char c, size_t i) noexcept;
  size_t string(std::string_view piece, size_t i) noexcept;
  size_t scalar(char c, size_t i) noexcept;
  size_t pass(std::string_view piece, size_t i) noexcept;
  size_t pass_top(std::string_view piece, size_t i) noexcept;
  size_t pass_nested(std::string_view piece, size_t i) noexcept;
  size_t pass_string(std::string_view piece, size_t i) noexcept;
  size_t find_quote(std::string_view piece, size_t i) noexcept;
  void pass_closed(size_t i) noexcept;
  bool seeks_media() const noexcept {
    return field_ != kNone && depth_ > 0 && media_ == Media::kNone;
  }
  size_t before_media(char c, size_t i) noexcept;
  void end_media(size_t i) noexcept;

  void begin_text(size_t limit) noexcept;
  Text text(std::string_view piece, size_t& i) noexcept;
  bool escape(char c) noexcept;
  void keep_code_unit() noexcept;
  void keep(char c) noexcept;
  std::string_view kept() const noexcept { return {kept_, unusable_ ? 0 : size_}; }

  static uint64_t bit_of(std::string_view name) noexcept;
  size_t wanted() noexcept;
  void settle(BodyField::Type type, std::string_view text, size_t i) noexcept;

  std::span<const std::string_view> names_;
  std::string_view alike_;
  uint64_t known_ = 0;   // bit_of() of each name, in lower case
  uint64_t before_ = 0;  // bytes of the pieces before this one
  State state_;

  // The value being read.
  size_t field_ = kNone;  // whose it is; kNone when nobody wants it
  BodyField::Type type_ = BodyField::Type::kMissing;
  uint64_t begin_ = 0;      // where it began in the body
  uint64_t spaces_ = 0;     // in it, outside of strings
  FieldDigest digest_;      // of it, but for what follows piece_from_ in this piece
  std::string_view piece_;  // only while it is fed
  size_t piece_from_ = 0;
  size_t depth_ = 0;        // of brackets, while passing; back to 0 at its end
  bool in_string_ = false;  // while passing; back to false at its end

  // The pictures and sounds in it.
  Media media_ = Media::kNone;
  size_t media_depth_ = 0;     // of brackets around the one that it is in
  uint64_t media_begin_ = 0;   // where that began in the body ...
  uint64_t media_spaces_ = 0;  // ... and spaces_ at that time
  uint64_t media_count_ = 0;
  uint64_t media_bytes_ = 0;
  size_t word_size_ = 0;  // of the string being passed: its beginning
  char word_[kMaxWordBytes];

  // The key or value being kept.
  bool escaped_ = false;   // after a backslash; while passing, too
  bool unusable_ = false;  // too long, or not text
  uint8_t hex_left_ = 0;   // digits of \uXXXX still to come
  uint16_t unicode_ = 0;
  size_t size_ = 0;
  size_t limit_ = 0;  // of size_
  char kept_[kMaxValueBytes];

  // The outcome. A name is settled by the end of each value, even if that is malformed, and not
  // settled any more once another begins.
  uint32_t settled_ = 0;     // bit i: names_[i]
  Found found_[kMaxFields];  // of the settled
  char texts_[kMaxFields][kMaxValueBytes];
};

// The field as a number, for a cost formula: a number as it is; a string that is a decimal number
// ("30") or WIDTHxHEIGHT, which is the product; true 1, false 0. NaN for all else. Infinity for a
// number beyond a double, or longer than kMaxValueBytes: NaN would let a default stand in for a
// value that the engine may well understand.
double number_of(const BodyField& field) noexcept;

}  // namespace penstock::http
