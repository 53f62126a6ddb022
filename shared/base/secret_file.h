// A file that holds a secret.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "shared/base/fd.h"
#include "shared/base/result.h"

namespace penstock {

struct SecretFile {
  std::string text;
  struct stat status {};

  // Whether more than its owner and readers of its group may open it.
  bool is_too_open() const { return (status.st_mode & 0777 & ~mode_t{0640}) != 0; }
};

// At most `most` + 1 bytes of it, so that one that is too large is seen. The Error names the file.
inline Result<SecretFile> read_secret_file(const std::string& path, size_t most) {
  SecretFile secret;
  secret.text.resize(most + 1);
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  const ssize_t size = file.valid() ? ::read(file.get(), secret.text.data(), most + 1) : -1;
  if (size < 0 || ::fstat(file.get(), &secret.status) != 0) {
    return Error{path + " cannot be read: " + std::strerror(errno)};
  }
  secret.text.resize(static_cast<size_t>(size));
  return secret;
}

}  // namespace penstock
