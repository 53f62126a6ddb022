// Fault: what a write to disk ran into, of which kind, and whose it is.
//
// The kind decides what is done about it. A fault of the disk or of the database stops every
// promise until it has passed; one of an operation's own (`own`: its file is gone, on a bad block,
// in the way) fails that operation alone, and others go on.
#pragma once

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>

namespace penstock::queue {

struct Fault {
  enum class Kind : uint8_t {
    kNone,
    kNoSpace,  // the disk is full
    kIo,       // the disk, or its file system, fails
    kCorrupt,  // what is there is not what was written
    kGone,     // it is not there, or shorter than what was written
    kRefused,  // it can never be done: too large, forbidden, something else is in the way
    kBusy,     // out of descriptors or memory: it may be done later
  };
  Kind kind = Kind::kNone;
  bool own = false;
  std::string what;  // what happened, to what

  explicit operator bool() const { return kind != Kind::kNone; }

  // Of a call on one file that has just failed.
  static Fault of_file(const std::string& path, const char* call) {
    const Kind kind = kind_of(errno);
    return {kind, kind != Kind::kNoSpace, path + ": " + call + " failed: " + std::strerror(errno)};
  }
  static Kind kind_of(int error) {
    switch (error) {
      case ENOSPC:
      case EDQUOT:
        return Kind::kNoSpace;
      case ENOENT:
      case ESTALE:
        return Kind::kGone;
      case EMFILE:
      case ENFILE:
      case ENOMEM:
        return Kind::kBusy;
      case EIO:
      case EROFS:
        return Kind::kIo;
      default:
        return Kind::kRefused;
    }
  }
};

}  // namespace penstock::queue
