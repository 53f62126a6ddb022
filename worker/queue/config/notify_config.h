// What an operator's programs and services are told when jobs end: `notify` of penstock.yaml.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "shared/base/clock.h"

namespace penstock::queue {

// A job's end, as hooks choose it. kDead: it failed every attempt, and is kept; it is kFailed, too.
// kQuota is no job's: a key has used much of a quota, or all of it.
enum class NoticeEvent : uint8_t { kCompleted, kFailed, kCancelled, kExpired, kDead, kQuota };
constexpr std::string_view kNoticeEvents[] = {"completed", "failed", "cancelled",
                                              "expired",   "dead",   "quota"};

// What templates and programs may know of a job, or of a quota, in the order of NoticeFields. It is
// on disk in this order: later ones come behind.
constexpr std::string_view kNoticeFields[] = {
    "event",      "id",       "status",     "queue",      "model",       "label", "error",
    "error_code", "attempts", "created_at", "started_at", "finished_at", "limit", "key_hash",
    "unit",       "percent",  "used",       "most",       "resets_at"};
// Numbers, or empty.
constexpr bool is_number(size_t field) { return (field >= 8 && field < 12) || field >= 15; }
constexpr size_t kFirstOfQuota = 12;  // these are a quota's alone
using NoticeFields = std::vector<std::string>;

// A body with places for a job's fields. It is made of what penstock.yaml has as a tree, so that
// no value that is filled in can end the string or the pair it stands in.
class NoticeTemplate {
 public:
  enum class As : uint8_t {
    kLiteral,
    kJsonText,   // within a JSON string
    kJsonValue,  // as a JSON value of its own
    kForm,       // within a value of application/x-www-form-urlencoded
  };
  // As it stands, or escaped so that it fits there.
  void text(std::string_view text, As as = As::kLiteral);
  void field(size_t index, As as) { pieces_.push_back({{}, index, as}); }
  bool empty() const { return pieces_.empty(); }
  std::string fill(const NoticeFields& fields) const;
  bool operator==(const NoticeTemplate&) const = default;

 private:
  struct Piece {
    std::string text;  // kLiteral
    size_t field = 0;  // in kNoticeFields
    As as = As::kLiteral;
    bool operator==(const Piece&) const = default;
  };
  std::vector<Piece> pieces_;
};

struct HookConfig {
  static constexpr uint32_t kMostPrograms = 64;  // at once
  static constexpr uint32_t kMostPosts = 4;      // likewise

  std::string name;
  uint32_t on = 0;                   // bits: 1 << NoticeEvent
  std::vector<std::string> command;  // a program's; empty: an URL is told
  std::string url;
  std::vector<std::string> headers;  // "name: value"
  std::string key_file;              // of the last of them; empty: there is none
  NoticeTemplate body;               // empty: the notice's own JSON
  int64_t timeout_ns = 10 * kNsPerSec;
  uint32_t tries = 5;
  uint32_t at_once = 4;
  bool operator==(const HookConfig&) const = default;
};

}  // namespace penstock::queue
