// The Error of a system call that has just failed: errno's words and kind.
#pragma once

#include <cerrno>
#include <cstring>
#include <string>

#include "shared/base/result.h"

namespace penstock {

inline ErrorKind kind_of_errno(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      return ErrorKind::kNoSpace;
    case ENOENT:
    case ESTALE:
      return ErrorKind::kGone;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return ErrorKind::kBusy;
    case EIO:
    case EROFS:
      return ErrorKind::kIo;
    default:
      return ErrorKind::kRefused;
  }
}

// `call`: what was tried on that path.
inline Error call_failed(const std::string& path, const char* call) {
  const int error = errno;
  return {path + ": " + call + " failed: " + std::strerror(error), kind_of_errno(error)};
}

}  // namespace penstock
