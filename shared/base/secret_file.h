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
  if (!file.valid() || ::fstat(file.get(), &secret.status) != 0) {
    return Error{path + " cannot be read: " + std::strerror(errno)};
  }
  size_t size = 0;
  while (size < secret.text.size()) {
    const ssize_t n = ::read(file.get(), secret.text.data() + size, secret.text.size() - size);
    if (n < 0) {
      return Error{path + " cannot be read: " + std::strerror(errno)};
    }
    if (n == 0) {
      break;
    }
    size += static_cast<size_t>(n);
  }
  secret.text.resize(size);
  return secret;
}

}  // namespace penstock
