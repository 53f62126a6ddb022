// Result<T>: a value, or an Error that says what happened, to what, and what to do about it.
//
// Errors are values here: a function that can fail for a reason outside this program returns a
// Result. Exceptions are left for what should never happen.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>
#include <variant>

namespace penstock {

// Code that handles an error branches on its kind, never on its words.
enum class ErrorKind : uint8_t {
  kRefused,  // it can never be done as it was asked: wrong, too large, forbidden, in the way
  kNoSpace,  // the disk is full
  kIo,       // the disk, or its file system, fails
  kCorrupt,  // what is there is not what was written
  kGone,     // it is not there, or shorter than what was written
  kBusy,     // out of descriptors or memory, or used by another: it may be done later
};

struct Error {
  std::string message;  // what happened, to what, and what would be right
  ErrorKind kind = ErrorKind::kRefused;
};

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}      // NOLINT(google-explicit-constructor)
  Result(Error error) : state_(std::move(error)) {}  // NOLINT(google-explicit-constructor)

  explicit operator bool() const { return std::holds_alternative<T>(state_); }

  // REQUIRES: *this holds a value.
  T& operator*() & { return std::get<T>(state_); }
  const T& operator*() const& { return std::get<T>(state_); }
  T&& operator*() && { return std::get<T>(std::move(state_)); }
  T* operator->() { return &std::get<T>(state_); }
  const T* operator->() const { return &std::get<T>(state_); }

  // REQUIRES: *this holds an error.
  const Error& error() const { return std::get<Error>(state_); }

 private:
  std::variant<T, Error> state_;
};

// For a function that gives nothing back but may fail: `return Ok{};`.
struct Ok {};
using Status = Result<Ok>;

}  // namespace penstock
