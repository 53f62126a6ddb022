// Some named fields of a multipart form, read in one pass without keeping the rest of it: for forms
// what BodyFields is for JSON.
//
//   FormFields fields(names, "multipart/form-data; boundary=7d1");
//   for (std::string_view piece : pieces) if (fields.feed(piece)) break;
//   fields[0].text                 // the model, "" when there is none
//   fields.files()                 // how many files came with it
//
// A field is a string, whatever is in it; one counts once its end was seen, and of two of a name
// the last. Lines may end in CRLF, as they must, or in LF, which some servers take. Of a part's
// header as many bytes as kMaxHeaderBytes are read.
//
// Memory is fixed; every byte is looked at a bounded number of times, however hostile the body.
// Format: RFC 7578 and RFC 2046, section 5.1.
#pragma once

#include "shared/http/body_fields.h"

namespace penstock::http {

class FormFields {  // NOLINT(*Padding): by what they are about
 public:
  static constexpr size_t kMaxFields = BodyFields::kMaxFields;
  static constexpr size_t kMaxNameBytes = BodyFields::kMaxNameBytes;
  static constexpr size_t kMaxValueBytes = BodyFields::kMaxValueBytes;
  static constexpr size_t kMaxHeaderBytes = 512;  // of one header field, as one line
  static constexpr size_t kMaxBoundaryBytes = 70;
  static constexpr size_t kMaxPaddingBytes = 64;  // white space behind a boundary

  // Whether that is the type of a form, whatever else it says.
  static bool is_form(std::string_view content_type) noexcept;

  // Nothing is found where content_type has no boundary. REQUIRES: as BodyFields.
  FormFields(std::span<const std::string_view> names, std::string_view content_type) noexcept;

  // Feeds the next piece of the body. True once nothing more can change the outcome.
  bool feed(std::string_view piece) noexcept;

  // See BodyFields.
  BodyField operator[](size_t i) const noexcept;

  // Where the value of a field that was found begins, in bytes from the beginning of the body; it
  // has operator[](i).bytes.
  uint64_t begin(size_t i) const noexcept { return found_[i].begin; }
  // What stands between parts, without line ends: "--7d1". Empty: content_type has none.
  std::string_view delimiter() const noexcept {
    return {delimiter_ + 1, delimiter_size_ > 0 ? delimiter_size_ - 1 : 0};
  }

  // Whether it is a form from its first byte. What others make of what comes before the first part,
  // or of a body that has none, nobody knows.
  bool is_form() const noexcept { return begun_ && !stray_; }

  // Parts that have a file's name, and whose end was seen.
  uint64_t files() const noexcept { return files_; }

 private:
  enum class State : uint8_t {
    kContent,    // before the first part, or in one's value
    kDelimiter,  // behind what looks like one, in its line
    kHeader,
    kEnd
  };
  struct Found {
    uint8_t size;  // of its text
    uint64_t bytes;
    uint64_t digest;
    uint64_t begin;
  };
  static constexpr size_t kNone = kMaxFields;

  size_t content(std::string_view piece, size_t i) noexcept;
  void delimiter(char c) noexcept;
  void header(char c) noexcept;
  void read_header() noexcept;
  void begin_part() noexcept;
  void end_part() noexcept;
  void add(std::string_view text) noexcept;
  void add_matched() noexcept;
  size_t want(std::string_view name) noexcept;

  std::span<const std::string_view> names_;
  State state_ = State::kContent;

  // A delimiter: LF, two dashes and the boundary. At the beginning of the form or of a part, some
  // leave the LF out.
  char delimiter_[kMaxBoundaryBytes + 3];
  size_t delimiter_size_ = 0;
  size_t matched_ = 1;              // of it
  bool bare_ = true;                // its LF is none of the body's
  char padding_[kMaxPaddingBytes];  // what is behind it in its line ...
  size_t padding_size_ = 0;
  size_t dashes_ = 0;  // ... of which so many are dashes, at its beginning

  char header_[kMaxHeaderBytes];
  size_t header_size_ = 0;
  bool line_ended_ = false;  // the header may go on in the next

  // The part being read.
  bool disposed_ = false;  // its Content-Disposition has come
  bool is_file_ = false;
  size_t field_ = kNone;
  uint64_t begin_ = 0;
  uint64_t bytes_ = 0;
  FieldDigest digest_;
  char kept_[kMaxValueBytes + 1];  // and the CR before the delimiter
  size_t kept_size_ = 0;
  char last_ = '\0';

  bool begun_ = false;    // a delimiter has come ...
  bool stray_ = false;    // ... behind more than line ends
  uint64_t fed_ = 0;      // bytes, in pieces before this one
  uint32_t settled_ = 0;  // bit i: names_[i]
  uint64_t files_ = 0;
  Found found_[kMaxFields];  // of the settled
  char texts_[kMaxFields][kMaxValueBytes];
};

}  // namespace penstock::http
